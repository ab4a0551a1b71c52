"""The plots of a comparison's report, as plotly.js takes them."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from dynoscope.dashboard.theme import Scheme
from dynoscope.diff import Diff
from dynoscope.diff.phrases import label_of, rows_of, shorten, unit_of
from dynoscope.reader import thin
from dynoscope.schema import TABLES

__all__ = ["figure", "figures", "layer_curves", "layer_ids", "line"]

Figure = dict[str, Any]
LayerCurves = tuple[str, str, pd.DataFrame]
"""A layer, a metric, and both runs' curves of it."""

HEAT_LAYERS: Final = 60
CURVED_LAYERS: Final = 6
CURVED_SCALARS: Final = 4
HEIGHT = 260


def figures(
    diff: Diff, scheme: Scheme, curves: Sequence[LayerCurves]
) -> dict[str, tuple[str, Figure]]:
    """Every plot by its id in the page: its title, and the plot.

    Args:
        diff: what to draw.
        scheme: its colours.
        curves: its `layer_curves`.
    """
    drawn = {
        "rotation": ("Rotation of the whole model", _rotation(diff, scheme)),
        "norm": ("Weight norm of the whole model", _norm(diff, scheme)),
    }
    for index, name in enumerate(diff.logged["name"][:CURVED_SCALARS]):
        drawn[f"scalar-{index}"] = (name, _scalar(diff, name, scheme))
    drawn["heat"] = ("Each layer's metrics, b against a", _heat(diff, scheme))
    for plot, (name, metric, both) in zip(layer_ids(diff), curves, strict=True):
        title = f"{name}: {label_of(metric)}"
        drawn[plot] = (title, _curves(both, [metric], scheme, metric))
    return drawn


def layer_ids(diff: Diff) -> list[str]:
    """Ids of the plots of the layers that differ most."""
    return [f"layer-{i}" for i in range(len(diff.most_different(CURVED_LAYERS)))]


def _rotation(diff: Diff, scheme: Scheme) -> Figure:
    metrics = ["angular_update", "pred_angular_update"]
    return _curves(diff.curves, metrics, scheme, "angular_update")


def _norm(diff: Diff, scheme: Scheme) -> Figure:
    metrics = ["weight_norm", "pred_weight_norm"]
    return _curves(diff.curves, metrics, scheme, "weight_norm")


def _scalar(diff: Diff, name: str, scheme: Scheme) -> Figure:
    traces = []
    for position, side in enumerate((diff.a, diff.b)):
        logged = side.run.scalars(name, (diff.steps.first, diff.steps.last + 1))
        color = scheme.run_color(position)
        traces.append(line(logged["step"], logged["value"], side.name, color))
    positive = min(itertools.chain(*(t["y"] for t in traces)), key=_or_inf, default=1)
    return figure(traces, scheme, log=_or_inf(positive) > 0)


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _curves(
    curves: pd.DataFrame, metrics: list[str], scheme: Scheme, axis: str
) -> Figure:
    """Both runs' metrics: measured solid, predicted dashed.

    Args:
        curves: `step`, and `<metric>_a` and `<metric>_b` of each metric.
        metrics: what to draw.
        scheme: the colours.
        axis: the metric that describes the y axis.
    """
    traces = []
    for metric, (position, side) in itertools.product(metrics, enumerate("ab")):
        values = curves[f"{metric}_{side}"]
        if not np.isfinite(values).any():
            continue
        dash = "dash" if TABLES["layers"][metric].role == "predicted" else "solid"
        name = f"{side}, {label_of(metric)}"
        color = scheme.run_color(position)
        traces.append(line(curves["step"], values, name, color, dash))
    return figure(traces, scheme, TABLES["layers"][axis].log, unit_of(axis))


def line(
    steps: pd.Series, values: pd.Series, name: str, color: str, dash: str = "solid"
) -> dict[str, Any]:
    """A curve, thinned to what a screen shows."""
    x, y = steps.to_numpy(), values.to_numpy(dtype=float)
    kept = thin(x, y)
    return {
        "type": "scatter",
        "mode": "lines" if len(kept) > 1 else "markers",
        "name": name,
        "x": x[kept].tolist(),
        "y": [_json_number(value) for value in y[kept].tolist()],
        "line": {"color": color, "width": 1.5, "dash": dash},
        "opacity": 0.8,  # noisy curves cross: the lower one still shows
        "marker": {"color": color},
        "hovertemplate": "%{y:.4~g}",
    }


def _json_number(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def figure(
    traces: list[dict[str, Any]], scheme: Scheme, log: bool, unit: str = ""
) -> Figure:
    """Curves over steps."""
    yaxis: dict[str, Any] = {"exponentformat": "power", "title": {"text": unit}}
    if log:
        yaxis["type"] = "log"
    layout = scheme.layout(
        height=HEIGHT, xaxis={"title": {"text": "step"}}, yaxis=yaxis
    )
    return {"data": traces, "layout": layout}


def _heat(diff: Diff, scheme: Scheme) -> Figure:
    """log2(b / a) of every positive measured metric of the layers."""
    rows = diff.layers
    rows = rows[(rows["kind"] == "ratio") & (rows["role"] == "measured")]
    chosen = set(diff.most_different(HEAT_LAYERS)["layer"])
    rows = rows[rows["layer"].isin(chosen) & rows["relative"].notna()]
    layers, metrics = (list(dict.fromkeys(rows[key])) for key in ("layer", "metric"))
    with np.errstate(divide="ignore"):
        doublings = np.log2(rows["relative"].to_numpy() + 1)
    finite = np.abs(doublings[np.isfinite(doublings)])
    limit = max(1.0, float(np.quantile(finite, 0.98))) if len(finite) else 1.0
    places = zip(rows["layer"], rows["metric"], strict=True)
    cells = dict(zip(places, doublings.tolist(), strict=True))
    z = [[cells.get((layer, metric)) for metric in metrics] for layer in layers]
    trace = {
        "type": "heatmap",
        "x": [label_of(metric) for metric in metrics],
        "y": layers,
        "z": [[_clipped(value, 60) for value in row] for row in z],
        "zmin": -limit,
        "zmax": limit,
        "colorscale": scheme.colorscale(),
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{y}<br>%{x}<br>log2(b/a) = %{z:.2f}<extra></extra>",
        "colorbar": {
            "orientation": "h", "thickness": 10, "len": 1, "y": 1, "yanchor": "bottom",
            "title": {"text": "log2(b / a): 1 is twice", "side": "top"},
            "tickfont": {"color": scheme.muted}, "outlinewidth": 0,
        },
    }  # fmt: skip
    yaxis = {
        "autorange": "reversed",
        "tickvals": layers,
        "ticktext": [shorten(layer, 20) for layer in layers],
        "showgrid": False,
        "type": "category",
    }
    layout = scheme.layout(
        height=190 + 22 * len(layers),
        hovermode="closest",
        xaxis={"tickangle": -50, "showgrid": False},
        yaxis=yaxis,
    )
    return {"data": [trace], "layout": layout}


def _clipped(value: float | None, limit: float) -> float | None:
    """Finite, so that JSON holds it; None where there is no number."""
    if value is None or math.isnan(value):
        return None
    return float(f"{min(max(value, -limit), limit):.6g}")


def layer_curves(diff: Diff) -> list[LayerCurves]:
    """Name, metric and curves of the layers that differ most."""
    top = diff.most_different(CURVED_LAYERS)
    if top.empty:
        return []
    frames = []
    within = (diff.steps.first, diff.steps.last + 1)
    for side in (diff.a, diff.b):
        metrics = list(dict.fromkeys(top["metric"]))
        rows = side.run.layers(metrics, top["layer"].tolist(), within)
        rows = rows[rows["step"].isin(diff.steps.numbers)]
        frames.append(rows.drop_duplicates(["step", "layer"], keep="last"))
    both = frames[0].merge(frames[1], on=["step", "layer"], suffixes=("_a", "_b"))
    return [
        (row.layer, row.metric, both[both["layer"] == row.layer])
        for row in rows_of(top)
    ]
