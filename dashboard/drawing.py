"""Callbacks that draw: each redraws when the curves, the choice or the theme change."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, html, no_update

from dynoscope.dashboard.callbacks import MAP
from dynoscope.dashboard.cards import metric_card
from dynoscope.dashboard.counts import count_plot
from dynoscope.dashboard.distribution import distribution_plot
from dynoscope.dashboard.figures import Figure
from dynoscope.dashboard.findings import findings_list
from dynoscope.dashboard.header import run_header, unreadable_header
from dynoscope.dashboard.heatmap import rotation_map
from dynoscope.dashboard.plots import (
    NEURONS,
    Plot,
    find_metric,
    layer_columns,
    layer_plot,
    lr_plot,
    scalar_plot,
)
from dynoscope.dashboard.state import CUMULATIVE
from dynoscope.dashboard.store import Store
from dynoscope.dashboard.theme import scheme
from dynoscope.dashboard.track import Steps
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
        Input(_window("scalar"), "data"),
    )
    def scalar(
        selection: list[str],
        _: Any,
        theme: str | None,
        name: str | None,
        log: bool,
        seen: Any,
    ) -> Any:
        if not selection:
            return no_update, no_update
        states, window = store.states(selection), _steps(seen)
        return _shown(
            scalar_plot(states, name or "", scheme(theme), log=bool(log), window=window)
        )

    @app.callback(
        Output(_figure("lr"), "data"),
        Output(_latest("lr"), "children"),
        _SELECTION,
        _SEEN,
        _THEME,
        Input(_window("lr"), "data"),
    )
    def learning_rate(
        selection: list[str], _: Any, theme: str | None, seen: Any
    ) -> Any:
        if not selection:
            return no_update, no_update
        states = store.states(selection)
        return _shown(lr_plot(states, scheme(theme), _steps(seen)))


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
        Input(_window("map"), "data"),
        State(MAP, "style"),
    )
    def draw_map(
        selection: list[str],
        _: Any,
        theme: str | None,
        layer: str | None,
        seen: Any,
        style: Any,
    ) -> Any:
        states = store.states(selection)
        if not states:
            return (no_update,) * 5
        run, state = next(iter(states.items()))
        drawn = rotation_map(state, layer, scheme(theme), _steps(seen))
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
        Input(_window(ALL, "layer"), "data"),
    )
    def draw(
        selection: list[str],
        _: Any,
        theme: str | None,
        layer: str | None,
        ids: list[Mapping[str, str]],
        seen: list[Any],
    ) -> Any:
        states = store.states(selection)
        if not states or not layer:
            return _unchanged(ids)
        names, due, colors = [i["name"] for i in ids], _due(), scheme(theme)
        together = layer_columns(names)
        for state in states.values():
            for table, columns in together.items():
                state.held(table, layer, columns)  # in one go
        return _columns(
            layer_plot(states, layer, name, colors, _steps(window))
            if due is None or name in due
            else None
            for name, window in zip(names, seen, strict=True)
        )


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
        Input(_window(ALL, "count"), "data"),
    )
    def draw(
        selection: list[str],
        _: Any,
        theme: str | None,
        ids: list[Mapping[str, str]],
        seen: list[Any],
    ) -> Any:
        states = store.states(selection)
        if not states:
            return *_unchanged(ids), no_update, no_update
        if not any(state.curves["normalization"] for state in states.values()):
            said = (
                "This model has no normalization layer with a trained bias, so "
                "there are no channels to count."
            )
            return *_unchanged(ids), True, said
        colors = scheme(theme)
        plots = [
            count_plot(states, i["name"], colors, _steps(window))
            for i, window in zip(ids, seen, strict=True)
        ]
        return *_columns(plots), False, ""


def _figure(name: Any, kind: str = "page") -> dict[str, Any]:
    """Where a plot takes its figure from."""
    return {"type": "figure", "kind": kind, "name": name}


def _window(name: Any, kind: str = "page") -> dict[str, Any]:
    """Where the steps are that are seen of it."""
    return {"type": "window", "kind": kind, "name": name}


def _steps(seen: Any) -> Steps | None:
    """The steps that are zoomed into, if any are."""
    return (int(seen[0]), int(seen[1])) if seen else None


def _due() -> set[str] | None:
    """The plots to draw, if nothing has changed but what is seen of them."""
    causes = list(ctx.triggered_prop_ids.values())
    if all(isinstance(c, dict) and c.get("type") == "window" for c in causes):
        return {cause["name"] for cause in causes} or None
    return None


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


def _columns(plots: Iterable[Plot | None]) -> tuple[list[Any], list[Any]]:
    shown = [_shown(plot) if plot else (no_update, no_update) for plot in plots]
    return [figure for figure, _ in shown], [words for _, words in shown]


def _unchanged(ids: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    return [no_update] * len(ids), [no_update] * len(ids)
