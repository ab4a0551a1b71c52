"""A plot with its title, its sentence and its last numbers."""

from typing import Any, Final

from dash import dcc, html

from dynoscope.schema import Metric

__all__ = ["card", "graph", "metric_card"]

CONFIG: Final[Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "showSendToCloud": False,  # nothing leaves this machine
    "plotlyServerURL": "",
    "responsive": True,
}

_INVISIBLE: Final[Any] = {
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "xaxis": {"visible": False},
    "yaxis": {"visible": False},
}


def card(title: str, sentence: str, name: str, controls: list[Any]) -> Any:
    """A section of the page with one plot, of kind `page`."""
    return html.Section(
        [
            html.Div(
                [html.H3(title), *controls, _latest("page", name)], className="head"
            ),
            html.P(sentence),
            graph("page", name, 260),
        ],
        className="card",
    )


def graph(kind: str, name: str, height: int) -> Any:
    """A plot, `height` pixels high, and the stores through which it gets its figure.

    Callbacks write to a store. What the user zoomed into is laid over the figure
    in the browser, on its way from there to the plot (assets/zoom.js); the steps that
    are seen then are in another store, so that they are drawn in detail.
    """
    key = {"kind": kind, "name": name}
    plot = dcc.Graph(
        id={"type": "plot", **key},
        config=CONFIG,
        responsive=True,
        style={"height": height},
        figure={"data": [], "layout": _INVISIBLE},
    )
    stores = [dcc.Store(id={"type": kind, **key}) for kind in ("figure", "window")]
    return html.Div([*stores, plot])


def metric_card(kind: str, name: str, metric: Metric, title: str) -> Any:
    """A small plot of one column, explained by the registry.

    Args:
        kind: which of the page's rows of small plots it is in.
        name: name of the column there.
        metric: the registry's entry.
        title: its title, unit included.
    """
    return html.Div(
        [
            html.H4(title),
            _latest(kind, name),
            html.P(metric.description, title=metric.source or None),
            graph(kind, name, 210),
        ],
        className="small",
    )


def _latest(kind: str, name: str) -> Any:
    """Where the last numbers of a plot stand."""
    key = {"type": "latest", "kind": kind, "name": name}
    return html.Span(id=key, className="latest")
