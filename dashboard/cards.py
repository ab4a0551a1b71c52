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


def card(title: str, sentence: str, name: str, controls: list[Any]) -> Any:
    """A section of the page with one plot, `{type: plot, name: name}`."""
    return html.Section(
        [
            html.Div([html.H3(title), *controls, _latest(name)], className="head"),
            html.P(sentence),
            graph({"type": "plot", "name": name}, 260),
        ],
        className="card",
    )


def _latest(name: str) -> Any:
    return html.Span(id={"type": "latest", "name": name}, className="latest")


def graph(name: Any, height: int) -> Any:
    """An empty plot that callbacks fill, `height` pixels high."""
    return dcc.Graph(
        id=name,
        config=CONFIG,
        responsive=True,
        style={"height": height},
        className="plot",
        figure={
            "data": [],
            "layout": {
                "paper_bgcolor": "rgba(0,0,0,0)",
                "plot_bgcolor": "rgba(0,0,0,0)",
                "xaxis": {"visible": False},
                "yaxis": {"visible": False},
            },
        },
    )


def metric_card(kind: str, name: str, metric: Metric, title: str) -> Any:
    """A small plot of one column, titled and explained by the registry.

    Args:
        kind: `layer-plot` or `count-plot`; `kind-latest` holds its last numbers.
        name: which of them.
        metric: the registry's entry.
        title: its title, unit included.
    """
    return html.Div(
        [
            html.H4(title),
            html.Span(id={"type": f"{kind}-latest", "name": name}, className="latest"),
            html.P(metric.description, title=metric.source or None),
            graph({"type": kind, "name": name}, 210),
        ],
        className="small",
    )
