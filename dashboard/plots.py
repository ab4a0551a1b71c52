"""Which curves of which runs a plot shows."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from dynoscope.dashboard.curves import NO_POINTS, curves_of, mixed, parts_of
from dynoscope.dashboard.figures import (
    Band,
    Curve,
    Figure,
    curves_figure,
    number,
)
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import Scheme
from dynoscope.dashboard.track import Steps
from dynoscope.schema import TABLES, Metric, metric

__all__ = [
    "DEFAULT_COUNTS",
    "DEFAULT_METRICS",
    "Plot",
    "find_metric",
    "latest",
    "layer_columns",
    "layer_metrics",
    "layer_plot",
    "lr_plot",
    "scalar_plot",
]

States = Mapping[str, RunState]
"""The selected runs by name, in the order of selection."""

NEURONS: Final = "neurons."
"""Prefix of a metric of the `neurons` table, among those of `layers`."""

DEFAULT_METRICS: Final = (
    "angular_update",
    "weight_norm",
    "update_norm",
    "grad_l2",
    "grad_density",
    "momentum_grad_cos",
)
DEFAULT_COUNTS: Final = ("dead", "ghost", "revived")
BANDED: Final = ("angular_update", "weight_norm")

DASHES: Final = ("dash", "dot", "dashdot", "longdash")
"""Of what is drawn beside a solid curve: predictions, further parameter groups."""


class Latest(NamedTuple):
    """The last numbers of a run in words, in its colour."""

    color: str
    words: str


class Plot(NamedTuple):
    """A figure, and its last numbers."""

    figure: Figure
    latest: list[Latest]


def layer_metrics() -> list[str]:
    """What can be drawn of a layer; predictions are drawn over what they predict."""
    own = [c.name for c in TABLES["layers"].columns if c.role != "key" and not c.of]
    neurons = TABLES["neurons"].names("measured")
    return [*own, *(NEURONS + name for name in neurons)]


def find_metric(name: str) -> Metric:
    """The registry's entry for a name of `layer_metrics`."""
    is_neuron = name.startswith(NEURONS)
    table = "neurons" if is_neuron else "layers"
    return metric(name.removeprefix(NEURONS), table)


def scalar_plot(
    states: States,
    name: str,
    scheme: Scheme,
    *,
    log: bool,
    window: Steps | None = None,
) -> Plot:
    """A logged number of every run; `window` is what is zoomed into."""
    drawn: list[Curve] = []
    for position, (run, state) in enumerate(states.items()):
        style = Curve(run, scheme.run_color(position), NO_POINTS, NO_POINTS)
        drawn += curves_of(state, "scalars", name, {"value": style}, window)
    figure = curves_figure(
        drawn, scheme, log=log, keep=f"{name}{log}", legend=len(states) > 1
    )
    return Plot(figure, latest(drawn))


def lr_plot(states: States, scheme: Scheme, window: Steps | None = None) -> Plot:
    """Learning rate of every parameter group of every run."""
    drawn: list[Curve] = []
    dashes = ("solid", *DASHES)
    for position, (run, state) in enumerate(states.items()):
        groups = state.curves["groups"]
        for group in groups:
            name = f"{run}, group {group}" if len(groups) > 1 else run
            dash = dashes[group % len(dashes)]
            style = Curve(name, scheme.run_color(position), NO_POINTS, NO_POINTS, dash)
            drawn += curves_of(state, "groups", group, {"lr": style}, window)
    words = latest(drawn)
    figure = curves_figure(drawn, scheme, keep="lr", legend=len(words) > 1)
    figure["layout"]["yaxis"] = {**figure["layout"]["yaxis"], "rangemode": "tozero"}
    return Plot(figure, words)


def layer_plot(
    states: States,
    layer: str,
    name: str,
    scheme: Scheme,
    window: Steps | None = None,
) -> Plot:
    """A metric of a layer: measured, predicted (dashed), spread over neurons."""
    drawn: list[Curve] = []
    bands: list[Band] = []
    words: list[Latest] = []
    for position, (run, state) in enumerate(states.items()):
        color = scheme.run_color(position)
        if name.startswith(NEURONS):
            styles = {
                name.removeprefix(NEURONS): Curve(run, color, NO_POINTS, NO_POINTS)
            }
            curves = curves_of(state, "neurons", layer, styles, window)
        else:
            styles = _styles(run, name, color)
            curves = _predicted(curves_of(state, "layers", layer, styles, window))
            bands += _band(run, state, layer, name, color, window)
        drawn += curves
        words += [_compared(curves)] if curves else []
    figure = curves_figure(
        drawn,
        scheme,
        bands=bands,
        log=find_metric(name).log,
        keep=f"{layer} {name}",
    )
    return Plot(figure, words)


def layer_columns(names: Sequence[str]) -> dict[str, list[str]]:
    """The columns that plots of some metrics show, by table."""
    found: dict[str, list[str]] = {"layers": [], "neurons": []}
    for name in names:
        if name.startswith(NEURONS):
            found["neurons"].append(name.removeprefix(NEURONS))
        else:
            found["layers"] += _styles("", name, "")
            found["neurons"] += _quantiles(name)
    return found


def _styles(run: str, name: str, color: str) -> dict[str, Curve]:
    """How a metric is drawn, and what predicts it."""
    styles = {name: Curve(run, color, NO_POINTS, NO_POINTS)}
    predictions = [c for c in TABLES["layers"].columns if c.of == name]
    for column, dash in zip(predictions, itertools.cycle(DASHES), strict=False):
        label = f"{run}, {column.label}"
        styles[column.name] = Curve(label, color, NO_POINTS, NO_POINTS, dash)
    return styles


def _predicted(curves: Sequence[Curve]) -> list[Curve]:
    """What was measured, and what of the predictions there is."""
    return [
        curve
        for curve in curves
        if curve.dash == "solid" or np.isfinite(curve.values).any()
    ]


def _quantiles(name: str) -> list[str]:
    return [f"{name}_{which}" for which in ("p05", "p50", "p95") if name in BANDED]


def _band(
    run: str,
    state: RunState,
    layer: str,
    name: str,
    color: str,
    window: Steps | None,
) -> list[Band]:
    if name not in BANDED:
        return []
    parts = parts_of(state, "neurons", layer, _quantiles(name), window)
    if not parts:
        return []
    # The quantiles of a track have the same steps.
    edges = [
        mixed([(p.steps, p.buckets.mean) for p in each]) for each in parts.values()
    ]
    steps, middle = edges[1]
    is_there = ~np.isnan(middle)
    series = (values[is_there] for values in (steps, *(edge[1] for edge in edges)))
    return [Band(f"{run}, neurons", color, *series)]


def _last(curve: Curve) -> float | None:
    if curve.last is not None or not len(curve.values):
        return curve.last
    return float(curve.values[-1])


def latest(curves: Sequence[Curve]) -> list[Latest]:
    """The last number of each curve."""
    named = (curve for curve in curves if curve.is_named)
    return [Latest(curve.color, number(_last(curve))) for curve in named]


def _compared(curves: Sequence[Curve]) -> Latest:
    """The last measured number, and the first predicted one where there is one."""
    named = [curve for curve in curves if curve.is_named]
    words = number(_last(named[0]))
    for prediction in named[1:2]:
        words += f" (predicted {number(_last(prediction))})"
    return Latest(named[0].color, words)
