"""Which curves of which runs a plot shows."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from dynoscope.dashboard.figures import (
    Band,
    Curve,
    Figure,
    curves_figure,
    number,
)
from dynoscope.dashboard.history import History
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import Scheme
from dynoscope.schema import TABLES, Metric, metric

__all__ = [
    "DEFAULT_COUNTS",
    "DEFAULT_METRICS",
    "Plot",
    "count_plot",
    "find_metric",
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


def scalar_plot(states: States, name: str, scheme: Scheme, *, log: bool) -> Plot:
    """A logged number of every run."""
    curves = []
    for position, (run, state) in enumerate(states.items()):
        with state.lock:
            series = state.scalars.get(name)
            if series is not None:
                color = scheme.run_color(position)
                curves.append(Curve(run, color, series.steps, series.values))
    figure = curves_figure(
        curves, scheme, log=log, keep=f"{name}{log}", legend=len(states) > 1
    )
    return Plot(figure, _latest(curves))


def lr_plot(states: States, scheme: Scheme) -> Plot:
    """Learning rate of every parameter group of every run."""
    curves = []
    dashes = ("solid", *DASHES)
    for position, (run, state) in enumerate(states.items()):
        with state.lock:
            steps, lr = state.groups.steps, state.groups.column("lr")
        for group in range(lr.shape[1]):
            name = f"{run}, group {group}" if lr.shape[1] > 1 else run
            dash = dashes[group % len(dashes)]
            color = scheme.run_color(position)
            known = ~np.isnan(lr[:, group])  # its optimizer stepped in the round
            curves.append(Curve(name, color, steps[known], lr[known, group], dash))
    figure = curves_figure(curves, scheme, keep="lr", legend=len(curves) > 1)
    figure["layout"]["yaxis"] = {**figure["layout"]["yaxis"], "rangemode": "tozero"}
    return Plot(figure, _latest(curves))


def layer_plot(states: States, layer: str, name: str, scheme: Scheme) -> Plot:
    """A metric of a layer: measured, predicted (dashed), spread over neurons."""
    drawn: list[Curve] = []
    bands: list[Band] = []
    words: list[Latest] = []
    for position, (run, state) in enumerate(states.items()):
        color = scheme.run_color(position)
        with state.lock:
            if name.startswith(NEURONS):
                curves = _neuron_curves(run, state, layer, name, color)
            else:
                curves = _layer_curves(run, state, layer, name, color)
                bands += _band(run, state, layer, name, color)
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


def count_plot(states: States, name: str, scheme: Scheme) -> Plot:
    """A count of channels: all layers of each run, each layer of the first run."""
    curves = []
    for position, (run, state) in enumerate(states.items()):
        with state.lock:
            steps = state.normalization.steps
            counts = state.normalization.column(name)
            layers = state.normalization.names
        if not layers:
            continue
        # Rounds in which all optimizers stepped are those that can be added up.
        is_there = ~np.isnan(counts).any(axis=1)
        if is_there.any():
            steps, counts = steps[is_there], counts[is_there]
        color = scheme.run_color(position)
        if position == 0 and len(layers) > 1:
            curves += [
                Curve(layer, color, steps, counts[:, i], "dot", 1.0)
                for i, layer in enumerate(layers)
            ]
        if metric(name, "normalization").unit == "channels":
            total, values = "all layers", counts.sum(axis=1)
        else:
            total, values = "mean of layers", counts.mean(axis=1)
        curves.append(Curve(f"{run}, {total}", color, steps, values, width=2.4))
    figure = curves_figure(curves, scheme, keep=name)
    figure["layout"]["yaxis"] = {**figure["layout"]["yaxis"], "rangemode": "tozero"}
    return Plot(figure, _latest([c for c in curves if c.width > 2]))


def _layer_curves(
    run: str, state: RunState, layer: str, name: str, color: str
) -> list[Curve]:
    if not _has(state, layer):
        return []
    steps, columns = state.columns_of(layer)
    curves = [Curve(run, color, steps, columns[name])]
    predictions = [c for c in TABLES["layers"].columns if c.of == name]
    for column, dash in zip(predictions, itertools.cycle(DASHES), strict=False):
        values = columns[column.name]
        if np.isfinite(values).any():
            label = f"{run}, {column.label}"
            curves.append(Curve(label, color, steps, values, dash))
    return curves


def _neuron_curves(
    run: str, state: RunState, layer: str, name: str, color: str
) -> list[Curve]:
    if layer not in state.neurons.names:
        return []
    at = state.neurons.names.index(layer)
    values = state.neurons.column(name.removeprefix(NEURONS))[:, at]
    is_there = ~np.isnan(values)
    return [Curve(run, color, state.neurons.steps[is_there], values[is_there])]


def _band(run: str, state: RunState, layer: str, name: str, color: str) -> list[Band]:
    if name not in BANDED or layer not in state.neurons.names:
        return []
    history: History = state.neurons
    at = history.names.index(layer)
    low, middle, high = (
        history.column(f"{name}_{which}")[:, at] for which in ("p05", "p50", "p95")
    )
    is_there = ~np.isnan(middle)
    series = (each[is_there] for each in (history.steps, low, middle, high))
    return [Band(f"{run}, neurons", color, *series)]


def _has(state: RunState, layer: str) -> bool:
    return layer in state.layer_names or layer in state.roll_ups


def _last(values: np.ndarray) -> float | None:
    return float(values[-1]) if len(values) else None


def _latest(curves: Sequence[Curve]) -> list[Latest]:
    return [Latest(curve.color, number(_last(curve.values))) for curve in curves]


def _compared(curves: Sequence[Curve]) -> Latest:
    """The last measured number, and the first predicted one where there is one."""
    words = number(_last(curves[0].values))
    for prediction in curves[1:2]:
        words += f" (predicted {number(_last(prediction.values))})"
    return Latest(curves[0].color, words)
