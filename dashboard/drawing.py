"""Callbacks that draw: each redraws when the curves, the choice or the theme change."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, html, no_update

from dynoscope.dashboard.callbacks import MAP
from dynoscope.dashboard.cards import metric_card
from dynoscope.dashboard.distribution import distribution_plot
from dynoscope.dashboard.figures import Figure
from dynoscope.dashboard.findings import findings_list
from dynoscope.dashboard.header import run_header, unreadable_header
from dynoscope.dashboard.heatmap import rotation_map
from dynoscope.dashboard.plots import (
    NEURONS,
    Plot,
    count_plot,
    find_metric,
    layer_plot,
    lr_plot,
    scalar_plot,
)
from dynoscope.dashboard.state import CUMULATIVE
from dynoscope.dashboard.store import Store
from dynoscope.dashboard.theme import scheme
from dynoscope.schema import Metric, metric

__all__ = ["register_drawing"]

# Whatever is drawn depends on these three.
_SELECTION = Input("selection", "data")
_SEEN = Input("seen", "data")
_THEME = Input("scheme", "data")


def register_drawing(app: Dash, store: Store) -> None:
    """Register every callback that draws."""
    _register_header(app, store)
    _register_findings(app, store)
    _register_training(app, store)
    _register_map(app, store)
    _register_layer(app, store)
    _register_distribution(app, store)
    _register_counts(app, store)


def _register_header(app: Dash, store: Store) -> None:
    @app.callback(Output("header", "children"), _SELECTION, _SEEN, _THEME)
    def header(selection: list[str], _: Any, theme: str | None) -> Any:
        if not selection:
            return "Choose a run in the list."
        states = store.states(selection)
        entries = {
            key: entry for key in selection if (entry := store.entry(key)) is not None
        }
        unreadable = [
            unreadable_header(entry)
            for key, entry in entries.items()
            if key not in states
        ]
        return [*run_header(states, entries, scheme(theme)), *unreadable]


def _register_findings(app: Dash, store: Store) -> None:
    @app.callback(
        Output("findings-list", "children"),
        Output("findings", "hidden"),
        Output("findings-shown", "data"),
        _SELECTION,
        _SEEN,
        _THEME,
        State("findings-shown", "data"),
    )
    def findings(selection: list[str], _: Any, theme: str | None, shown: Any) -> Any:
        states = store.states(selection)
        now = [[key, len(state.findings)] for key, state in states.items()]
        if [theme, now] == shown:
            return (no_update,) * 3  # notes that are unfolded stay so
        drawn = findings_list(states, scheme(theme))
        return drawn, not drawn, [theme, now]


def _register_training(app: Dash, store: Store) -> None:
    @app.callback(
        Output(_figure("scalar"), "data"),
        Output(_latest("scalar"), "children"),
        _SELECTION,
        _SEEN,
        _THEME,
        Input("scalar", "value"),
        Input("scalar-log", "checked"),
    )
    def scalar(
        selection: list[str], _: Any, theme: str | None, name: str | None, log: bool
    ) -> Any:
        if not selection:
            return no_update, no_update
        states = store.states(selection)
        return _shown(scalar_plot(states, name or "", scheme(theme), log=bool(log)))

    @app.callback(
        Output(_figure("lr"), "data"),
        Output(_latest("lr"), "children"),
        _SELECTION,
        _SEEN,
        _THEME,
    )
    def learning_rate(selection: list[str], _: Any, theme: str | None) -> Any:
        if not selection:
            return no_update, no_update
        return _shown(lr_plot(store.states(selection), scheme(theme)))


def _register_map(app: Dash, store: Store) -> None:
    @app.callback(
        Output(_figure("map"), "data"),
        Output(MAP, "style"),
        Output("map-about", "children"),
        Output("map-note", "children"),
        Output("map-run", "children"),
        _SELECTION,
        _SEEN,
        _THEME,
        Input("layer", "value"),
        State(MAP, "style"),
    )
    def draw_map(
        selection: list[str], _: Any, theme: str | None, layer: str | None, style: Any
    ) -> Any:
        states = store.states(selection)
        if not states:
            return (no_update,) * 5
        run, state = next(iter(states.items()))
        drawn = rotation_map(state, layer, scheme(theme))
        wanted = {"height": drawn.height}
        name = run if len(states) > 1 else ""
        height = wanted if wanted != style else no_update
        return drawn.figure, height, drawn.about, drawn.note, name


def _register_layer(app: Dash, store: Store) -> None:
    @app.callback(Output("layer-plots", "children"), Input("metrics", "value"))
    def lay_out(names: list[str] | None) -> Any:
        return [
            metric_card("layer", name, (m := find_metric(name)), _title(name, m))
            for name in names or []
        ]

    @app.callback(
        Output(_figure(ALL, "layer"), "data"),
        Output(_latest(ALL, "layer"), "children"),
        _SELECTION,
        _SEEN,
        _THEME,
        Input("layer", "value"),
        Input(_figure(ALL, "layer"), "id"),
    )
    def draw(
        selection: list[str],
        _: Any,
        theme: str | None,
        layer: str | None,
        ids: list[Mapping[str, str]],
    ) -> Any:
        states = store.states(selection)
        if not states or not layer:
            return _unchanged(ids)
        colors = scheme(theme)
        plots = [layer_plot(states, layer, i["name"], colors) for i in ids]
        return _columns(plots)


def _register_distribution(app: Dash, store: Store) -> None:
    @app.callback(
        Output(_figure("distribution"), "data"),
        Output(_latest("distribution"), "children"),
        Output("distribution", "hidden"),
        Input("binned", "data"),  # changes with the selection too
        _THEME,
        Input("layer", "value"),
        Input("quantity", "value"),
        State("selection", "data"),
    )
    def draw(
        binned: str,
        theme: str | None,
        layer: str | None,
        quantity: str,
        selection: list[str],
    ) -> Any:
        if not binned or not layer:
            return no_update, no_update, True
        states = store.states(selection)
        plot = distribution_plot(states, layer, quantity, scheme(theme))
        return *_shown(plot), False


def _register_counts(app: Dash, store: Store) -> None:
    @app.callback(Output("count-plots", "children"), Input("counts", "value"))
    def lay_out(names: list[str] | None) -> Any:
        found = [(name, metric(name, "normalization")) for name in names or []]
        return [metric_card("count", n, m, _title(n, m)) for n, m in found]

    @app.callback(
        Output(_figure(ALL, "count"), "data"),
        Output(_latest(ALL, "count"), "children"),
        Output("counts-body", "hidden"),
        Output("counts-note", "children"),
        _SELECTION,
        _SEEN,
        _THEME,
        Input(_figure(ALL, "count"), "id"),
    )
    def draw(
        selection: list[str], _: Any, theme: str | None, ids: list[Mapping[str, str]]
    ) -> Any:
        states = store.states(selection)
        if not states:
            return *_unchanged(ids), no_update, no_update
        if not any(state.normalization.names for state in states.values()):
            said = (
                "This model has no normalization layer with a trained bias, so "
                "there are no channels to count."
            )
            return *_unchanged(ids), True, said
        plots = [count_plot(states, i["name"], scheme(theme)) for i in ids]
        return *_columns(plots), False, ""


def _figure(name: Any, kind: str = "page") -> dict[str, Any]:
    """Where a plot takes its figure from."""
    return {"type": "figure", "kind": kind, "name": name}


def _latest(name: Any, kind: str = "page") -> dict[str, Any]:
    """Where its last numbers stand."""
    return {"type": "latest", "kind": kind, "name": name}


def _title(name: str, entry: Metric) -> str:
    title = f"{entry.label} [{entry.unit}]" if entry.unit else entry.label
    if name in CUMULATIVE:
        return f"{entry.label} so far [{entry.unit}]"
    return f"neurons: {title}" if name.startswith(NEURONS) else title


def _shown(plot: Plot) -> tuple[Figure, list[Any]]:
    words = [html.Span(text, style={"color": color}) for color, text in plot.latest]
    return plot.figure, words


def _columns(plots: Sequence[Plot]) -> tuple[list[Figure], list[list[Any]]]:
    shown = [_shown(plot) for plot in plots]
    return [figure for figure, _ in shown], [words for _, words in shown]


def _unchanged(ids: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    return [no_update] * len(ids), [no_update] * len(ids)
