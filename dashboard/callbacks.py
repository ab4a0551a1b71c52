"""What happens when the clock ticks, or the user chooses something."""

from collections.abc import Sequence
from typing import Any, Final

from dash import MATCH, ClientsideFunction, Dash, Input, Output, State, ctx, no_update

from dynoscope.dashboard.controls import (
    Link,
    layer_options,
    preferred_layer,
    preferred_scalar,
    scalar_options,
)
from dynoscope.dashboard.distribution import binned_until
from dynoscope.dashboard.layout import BEAT
from dynoscope.dashboard.plots import DEFAULT_METRICS
from dynoscope.dashboard.runs_list import grid_style
from dynoscope.dashboard.store import Store

__all__ = ["register_choices"]

RESTING: Final = 4 * BEAT
"""Milliseconds between looks for new runs while none of those shown goes on."""

# The address follows the choice without a round trip, and without a new entry in
# the browser's history for every click.
_TO_ADDRESS: Final = """
(runs, layer, scalar, metrics, defaults) => {
  if (!runs || !runs.length) return window.dash_clientside.no_update;
  const query = new URLSearchParams();
  runs.forEach((run) => query.append("run", run));
  if (layer) query.append("layer", layer);
  if (scalar) query.append("scalar", scalar);
  const chosen = metrics || [];
  if (chosen.join() !== defaults.join())
    chosen.forEach((metric) => query.append("metric", metric));
  const search = "?" + query.toString();
  if (search !== window.location.search)
    window.history.replaceState(null, "", window.location.pathname + search);
  return search;
}
"""

# What is in force, whether the user chose it or the system has it; a change of the
# system's own is pushed by assets/scheme.js.
_SCHEME: Final = "() => document.documentElement.dataset.mantineColorScheme"

MAP: Final = {"type": "plot", "kind": "page", "name": "map"}

_FILTER: Final = """
(text, options) => ({ ...options, quickFilterText: text || "" })
"""


def register_choices(app: Dash, store: Store) -> None:
    """Register the clock, the choice of runs, and the choices within them."""
    _register_clock(app, store)
    _register_link(app, store)
    _register_selection(app, store)
    _register_controls(app, store)


def _register_clock(app: Dash, store: Store) -> None:
    @app.callback(
        Output("runs", "rowData"),
        Output("runs", "style"),
        Output("seen", "data"),
        Output("clock", "interval"),
        Output("content", "hidden"),
        Output("aside", "hidden"),
        Output("empty", "hidden"),
        Output("body", "className"),
        Output("runs", "selectedRows", allow_duplicate=True),
        Input("clock", "n_intervals"),
        State("seen", "data"),
        State("selection", "data"),
        State("clock", "interval"),
        # The next tick waits for this one, however slow the disk.
        running=[(Output("clock", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def tick(
        _: int, seen: dict[str, Any], selection: list[str], interval: int
    ) -> tuple[Any, ...]:
        store.scan()
        rows = store.rows()
        now = {
            "runs": store.version,
            "curves": store.refresh(selection),
            "empty": not rows,
        }
        beat = BEAT if store.is_live(selection) or not rows else RESTING
        beat_update = beat if beat != interval else no_update
        if now == seen:
            return (*[no_update] * 3, beat_update, *[no_update] * 5)
        if now["runs"] == seen.get("runs"):
            return (no_update, no_update, now, beat_update, *[no_update] * 5)
        # The first run of all is shown; after that, the choice is the user's.
        is_first = seen.get("empty") and rows and not selection
        chosen = {"ids": [store.newest()]} if is_first else no_update
        style = "body" if rows else "body bare"
        hidden = (not rows, not rows, bool(rows))
        height = grid_style(len(rows))
        return (rows, height, now, beat_update, *hidden, style, chosen)


def _register_link(app: Dash, store: Store) -> None:
    @app.callback(
        Output("runs", "selectedRows"),
        Output("layer", "value"),
        Output("scalar", "value"),
        Output("metrics", "value"),
        # Beside the grid's own echo, which does not keep the order.
        Output("selection", "data", allow_duplicate=True),
        Input("url", "search"),
        prevent_initial_call="initial_duplicate",
    )
    def open_link(search: str | None) -> tuple[Any, ...]:
        link = Link.of(search)
        known = [run for run in link.runs if store.entry(run) is not None]
        newest = store.newest()
        runs = known or ([newest] if newest else [])
        store.refresh(runs)
        return (
            {"ids": runs} if runs else no_update,
            link.layer or no_update,
            link.scalar or no_update,
            link.metrics or no_update,
            runs,
        )

    in_browser: Any = app.clientside_callback  # dash gives it no types
    in_browser(
        _TO_ADDRESS.replace(
            "(runs, layer, scalar, metrics, defaults) => {",
            "(runs, layer, scalar, metrics) => {\n"
            f"  const defaults = {list(DEFAULT_METRICS)!r};",
        ),
        Output("linked", "data"),
        Input("selection", "data"),
        Input("layer", "value"),
        Input("scalar", "value"),
        Input("metrics", "value"),
        prevent_initial_call=True,
    )
    in_browser(
        ClientsideFunction("dynoscope", "keepZoom"),
        Output({"type": "plot", "kind": MATCH, "name": MATCH}, "figure"),
        Input({"type": "figure", "kind": MATCH, "name": MATCH}, "data"),
        prevent_initial_call=True,
    )
    in_browser(
        ClientsideFunction("dynoscope", "seenSteps"),
        Output({"type": "window", "kind": MATCH, "name": MATCH}, "data"),
        Input({"type": "plot", "kind": MATCH, "name": MATCH}, "relayoutData"),
        State({"type": "window", "kind": MATCH, "name": MATCH}, "data"),
        prevent_initial_call=True,
    )
    in_browser(_SCHEME, Output("scheme", "data"), Input("url", "pathname"))
    in_browser(
        _FILTER,
        Output("runs", "dashGridOptions"),
        Input("filter", "value"),
        State("runs", "dashGridOptions"),
        prevent_initial_call=True,
    )


def _register_selection(app: Dash, store: Store) -> None:
    @app.callback(
        Output("selection", "data"),
        Input("runs", "selectedRows"),
        State("selection", "data"),
        prevent_initial_call=True,
    )
    def select(chosen: Any, before: list[str]) -> Any:
        names = _names(chosen)
        # In the order of choosing: the first one drives the map.
        kept = [run for run in before if run in names]
        after = [*kept, *(run for run in names if run not in kept)]
        store.refresh(after)
        return after if after != before else no_update


def _register_controls(app: Dash, store: Store) -> None:
    @app.callback(
        Output("layer", "data"),
        Output("layer", "value", allow_duplicate=True),
        Output("scalar", "data"),
        Output("scalar", "value", allow_duplicate=True),
        Output("binned", "data"),
        Input("selection", "data"),
        Input("seen", "data"),
        Input(MAP, "clickData"),
        State("layer", "data"),
        State("layer", "value"),
        State("scalar", "data"),
        State("scalar", "value"),
        State("binned", "data"),
        prevent_initial_call=True,
    )
    def offer(
        selection: list[str],
        _: Any,
        click: Any,
        layers: Any,
        layer: str | None,
        scalars: Any,
        scalar: str | None,
        binned: str,
    ) -> tuple[Any, ...]:
        if ctx.triggered_id == MAP:
            clicked = click["points"][0]["y"] if click else layer
            return no_update, clicked, *[no_update] * 3
        states = store.states(selection)
        layers_now = layer_options(states)
        names = scalar_options(states)
        binned_now = binned_until(states)
        is_offered = _offers(layers_now, layer)
        new_layer = layer if is_offered else preferred_layer(states)
        new_scalar = scalar if scalar in names else preferred_scalar(names)
        return (
            layers_now if layers_now != layers else no_update,
            new_layer if new_layer != layer else no_update,
            names if names != scalars else no_update,
            new_scalar if new_scalar != scalar else no_update,
            # Histograms are drawn when there is a new one, not at every beat.
            binned_now if binned_now != binned else no_update,
        )


def _names(chosen: Any) -> list[str]:
    """Runs of a grid's `selectedRows`, in either of its forms."""
    if isinstance(chosen, dict):
        return list(chosen.get("ids", []))
    return [row["id"] for row in chosen or []]


def _offers(options: Sequence[Any], value: str | None) -> bool:
    return any(value == item["value"] for group in options for item in group["items"])
