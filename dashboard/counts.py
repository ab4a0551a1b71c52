"""Counts of channels of normalization layers: each of them, and all together."""

import dataclasses
from typing import Final

import numpy as np

from dynoscope.dashboard.curves import NO_POINTS
from dynoscope.dashboard.figures import POINTS, Curve, curves_figure
from dynoscope.dashboard.plots import Latest, Plot, States, latest
from dynoscope.dashboard.shown import Part, drawn, joined, part_of
from dynoscope.dashboard.state import CUMULATIVE, RunState
from dynoscope.dashboard.theme import Scheme
from dynoscope.dashboard.track import Steps
from dynoscope.metrics.buckets import Buckets
from dynoscope.schema import metric

__all__ = ["count_plot"]

TOTAL: Final = 2.4
"""Pixels of the line that stands for all layers."""


def count_plot(
    states: States, name: str, scheme: Scheme, window: Steps | None = None
) -> Plot:
    """A count of channels: all layers of each run, each layer of the first run."""
    curves: list[Curve] = []
    words: list[Latest] = []
    for position, (run, state) in enumerate(states.items()):
        layers = state.curves["normalization"]
        if not layers:
            continue
        color = scheme.run_color(position)
        whole, *fine = _parts(state, name, window)
        styles = [
            Curve(layer, color, NO_POINTS, NO_POINTS, "dot", 1.0) for layer in layers
        ]
        if position == 0 and len(layers) > 1:
            for at, style in enumerate(styles):
                curves += _over(style, *(part.only(at) for part in (whole, *fine)))
        is_count = metric(name, "normalization").unit == "channels"
        label = f"{run}, {'all layers' if is_count else 'mean of layers'}"
        style = Curve(label, color, NO_POINTS, NO_POINTS, width=TOTAL)
        together = _over(style, *(_total(p, is_count) for p in (whole, *fine)))
        words += latest(together)
        curves += together
    figure = curves_figure(curves, scheme, keep=name)
    figure["layout"]["yaxis"] = {**figure["layout"]["yaxis"], "rangemode": "tozero"}
    return Plot(figure, words)


def _parts(state: RunState, name: str, window: Steps | None) -> list[Part]:
    """Counts of all layers: all of them, and what is zoomed into."""
    first = state.curves["normalization"][0]
    with state.lock:
        held = state.held("normalization", first, [name])[name]
        parts = [part_of(held)]
        is_crowded = len(held.steps) > POINTS or not held.track.is_exact
        if window is not None and is_crowded and name not in CUMULATIVE:
            near = held
            if not held.track.is_exact:
                near = state.held("normalization", first, [name], window)[name]
            parts.append(part_of(near, window))
    return [
        _added_up(part) if name in CUMULATIVE else _complete(part) for part in parts
    ]


def _complete(part: Part) -> Part:
    """Rounds in which all optimizers stepped are those that can be added up."""
    is_there = np.asarray(~np.isnan(part.buckets.mean).any(axis=1))
    return part.where(is_there) if is_there.any() else part


def _added_up(part: Part) -> Part:
    """The sum so far, in place of that of each step."""
    mean, known = part.buckets.mean, part.buckets.known
    so_far = np.cumsum(np.where(known > 0, mean * known, 0.0), axis=0)
    total = np.where(np.isnan(mean), np.nan, so_far)
    counted = part._replace(buckets=Buckets(total, total, total, known), last=None)
    return _complete(counted)


def _total(part: Part, is_count: bool) -> Part:
    """All layers together."""
    add = np.sum if is_count else np.mean
    total = add(part.buckets.mean, axis=1)
    buckets = Buckets(total, total, total, part.buckets.known.sum(axis=1))
    last = None if part.last is None else add(part.last)
    return Part(part.steps, buckets, part.span, last)


def _over(style: Curve, *parts: Part) -> list[Curve]:
    whole, *fine = (
        dataclasses.replace(drawn(style, part), spread=None) for part in parts
    )
    return joined(whole, fine[0]) if fine else [whole]
