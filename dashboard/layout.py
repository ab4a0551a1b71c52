"""The page: what stands where, and what each plot shows, in a sentence."""

from pathlib import Path
from typing import Any, Final

import dash_mantine_components as dmc
from dash import dcc, html

from dynoscope.dashboard.cards import card, graph
from dynoscope.dashboard.controls import count_options, metric_options
from dynoscope.dashboard.plots import DEFAULT_COUNTS, DEFAULT_METRICS
from dynoscope.dashboard.runs_list import runs_list
from dynoscope.dashboard.store import Store
from dynoscope.remote import joined

__all__ = ["BEAT", "page"]

BEAT: Final = 1000
"""Milliseconds between looks at a run that is being written."""

EXAMPLE: Final = """\
import dynoscope
with dynoscope.watch(model, optimizer, run="{run}") as scope:
    ...  # your training loop; scope.log(loss=loss) adds a curve"""

_LAYER: Final = (
    "Solid is measured, dashed is where the layer would settle; further broken lines "
    "are further predictions, such as where the schedule has taken it by now. The "
    "shaded band spans 5-95 % of its neurons. Good: solid follows the schedule, or "
    "settles on dashed, and the band is narrow. "
    "Bad: they drift apart, or a few neurons run away."
)
_DISTRIBUTION: Final = (
    "Elements of the layer chosen above, by value, at the last step with a histogram; "
    "lines are earlier ones, the older the fainter. Logarithmic on either side of "
    "zero; heights are shares of the elements per power of two. Dashed: "
    "±1/weight decay, the box that Lion holds its weights in. Good: weights spread "
    "inside it. Piled up at its edge, they are held by weight decay, not by the loss."
)
_COUNTS: Final = (
    "Channels of normalization layers whose bias gets no gradient at all. Good: none. "
    "Dead channels are capacity lost; ghost steps move them blindly, revivals bring "
    "them back at an arbitrary place. Thick: all layers; dotted: each layer."
)


def page(store: Store) -> Any:
    """The layout, with the list of runs as it is now."""
    store.scan()
    rows = store.rows()
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="clock", interval=BEAT),
            dcc.Store(id="seen", data={"empty": not rows}),
            dcc.Store(id="selection", data=[]),
            dcc.Store(id="linked"),
            dcc.Store(id="binned", data=""),
            dcc.Store(id="scheme"),
            _top(store.place),
            html.Main(
                [runs_list(rows), html.Div(_content(), id="content", hidden=not rows)],
                className="body" if rows else "body bare",
                id="body",
            ),
            html.Div(_empty(store.place), id="empty", hidden=bool(rows)),
        ],
        defaultColorScheme="auto",
        theme={"primaryColor": "blue", "defaultRadius": "md"},
    )


def _top(place: Path | str) -> Any:
    return html.Header(
        [
            html.H1("dynoscope"),
            html.Span(str(place), className="folder", title=_whole(place)),
            dmc.ColorSchemeToggle(
                id="theme",
                lightIcon=html.Span("☾"),
                darkIcon=html.Span("☀"),
                variant="subtle",
                color="gray",
                size="lg",
                **{"aria-label": "Switch between light and dark"},
            ),
        ],
        className="top",
    )


def _content() -> list[Any]:
    return [
        html.Section(id="header", className="card"),
        _findings(),
        html.Div([_scalars(), _learning_rate()], className="pair"),
        _map(),
        _layer(),
        _distribution(),
        _normalization(),
    ]


def _findings() -> Any:
    return html.Section(
        [
            html.H3("Findings"),
            html.P("What rules found odd in the measurements, and what helps."),
            html.Div(id="findings-list"),
            dcc.Store(id="findings-shown"),
        ],
        id="findings",
        className="card",
        hidden=True,
    )


def _scalars() -> Any:
    controls = [
        dmc.Select(
            id="scalar",
            data=[],
            allowDeselect=False,
            searchable=True,
            size="sm",
            className="pick",
            **{"aria-label": "Logged number"},
        ),
        dmc.Switch(id="scalar-log", label="log", size="sm"),
    ]
    sentence = "What the run logged. A loss should fall; spikes and gaps (NaN) are bad."
    return card("Logged numbers", sentence, "scalar", controls)


def _learning_rate() -> Any:
    sentence = (
        "The step size in force, per parameter group: with weight decay it sets the "
        "predictions below."
    )
    return card("Learning rate", sentence, "lr", [])


def _map() -> Any:
    return html.Section(
        [
            html.Div(
                [html.H3("Rotation against theory"), html.Span(id="map-run")],
                className="head",
            ),
            html.P(id="map-about"),
            html.P(id="map-note", className="note"),
            graph("page", "map", 320),
        ],
        className="card",
    )


def _layer() -> Any:
    return html.Section(
        [
            html.Div(
                [
                    html.H3("One layer"),
                    dmc.Select(
                        id="layer",
                        data=[],
                        allowDeselect=False,
                        searchable=True,
                        size="sm",
                        className="pick wide",
                        **{"aria-label": "Layer"},
                    ),
                ],
                className="head",
            ),
            html.P(_LAYER),
            dmc.MultiSelect(
                id="metrics",
                data=metric_options(),
                value=list(DEFAULT_METRICS),
                searchable=True,
                size="sm",
                hidePickedOptions=True,
                placeholder="Add a metric",
                **{"aria-label": "Metrics"},
            ),
            html.Div(id="layer-plots", className="plots"),
        ],
        className="card",
    )


def _distribution() -> Any:
    choice = dmc.SegmentedControl(
        id="quantity",
        data=["weight", "gradient"],
        value="weight",
        size="sm",
        **{"aria-label": "Quantity"},
    )
    shown = card("Distribution in the layer", _DISTRIBUTION, "distribution", [choice])
    return html.Div(shown, id="distribution", hidden=True)


def _normalization() -> Any:
    return html.Section(
        [
            html.H3("Normalization layers"),
            html.P(id="counts-note", className="note"),
            html.Div(
                [
                    html.P(_COUNTS),
                    dmc.MultiSelect(
                        id="counts",
                        data=count_options(),
                        value=list(DEFAULT_COUNTS),
                        size="sm",
                        hidePickedOptions=True,
                        placeholder="Add a count",
                        **{"aria-label": "Counts"},
                    ),
                    html.Div(id="count-plots", className="plots"),
                ],
                id="counts-body",
            ),
        ],
        className="card",
    )


def _empty(place: Path | str) -> Any:
    return html.Section(
        [
            html.H2("No runs yet"),
            html.P(["Nothing has been recorded in ", html.Code(str(place)), "."]),
            html.P("Put these lines around your training loop:"),
            html.Pre(EXAMPLE.format(run=_first(place))),
            html.P("This page fills in by itself as soon as a run appears."),
        ],
        className="card empty",
    )


def _whole(place: Path | str) -> str:
    return str(place.absolute()) if isinstance(place, Path) else place


def _first(place: Path | str) -> str:
    """What to call a first run there."""
    if isinstance(place, Path):
        return (place / "first").as_posix()
    return joined(place, "first")
