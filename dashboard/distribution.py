"""How a layer's weights or gradients are distributed, and where Lion's box ends."""

import itertools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynoscope.dashboard.figures import Figure, curves_figure, number, packed
from dynoscope.dashboard.plots import Latest, Plot, States
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import Scheme, translucent
from dynoscope.metrics.histograms import BINS, EDGES, LARGEST, SMALLEST, SPLIT_BITS
from dynoscope.reader.rollup import is_roll_up, members_of

__all__ = ["binned_until", "distribution_plot"]

STEPS: Final = 4
"""Histograms drawn of a run that is shown alone."""

TINY: Final = 0.01
"""Share of the elements, zeros aside, that the bin around zero may swallow."""

FAR: Final = 8
"""Powers of two beyond the largest element up to which the box is drawn."""

NEAR: Final = 1 << 10
"""Steps before a histogram in which its weight decay is looked for."""

LABELS: Final = 6.5
"""Labels of the axis that fit side by side on a narrow screen."""

_POWERS: Final = 2.0 ** np.arange(SMALLEST, LARGEST + 1)

_ENDS: Final = np.clip(EDGES, -(2.0 ** (LARGEST + 1)), 2.0 ** (LARGEST + 1))
"""Edges as they are drawn: infinity has a place on the screen."""


class _Histogram(NamedTuple):
    name: str
    color: str
    step: int
    counts: npt.NDArray[np.int64]

    @property
    def total(self) -> int:
        return int(self.counts.sum())


class _Scale(NamedTuple):
    """An axis on which every power of two is equally wide, on either side of zero.

    Attributes:
        floor: below it, it is linear, through zero, and one power of two wide.
        kept: indices of the `EDGES` that are drawn.
    """

    floor: float
    kept: npt.NDArray[np.intp]

    @property
    def edges(self) -> np.ndarray:
        return _ENDS[self.kept]

    def at(self, values: Any) -> np.ndarray:
        """Where values lie."""
        away = np.abs(values) / self.floor
        octaves = 1 + np.log2(np.maximum(away, 1.0))
        position: np.ndarray = np.sign(values) * np.where(away < 1, away, octaves)
        return position

    def bins(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Counts between the edges that are drawn."""
        inside = counts[: self.kept[-1]]  # what is beyond is empty
        added: npt.NDArray[np.int64] = np.add.reduceat(inside, self.kept[:-1])
        return added

    def heights(self, histogram: _Histogram) -> np.ndarray:
        """Share of the elements per power of two; areas on the axis are shares."""
        share = self.bins(histogram.counts) / histogram.total
        height: np.ndarray = share / np.diff(self.at(self.edges))
        return height


def binned_until(states: States) -> str:
    """A text that changes with the runs and their newest histogram; "" of none."""
    if not any(state.snapshots for state in states.values()):
        return ""
    return "|".join(f"{r}:{s.snapshots.last}:{id(s)}" for r, s in states.items())


def distribution_plot(
    states: States, layer: str, quantity: str, scheme: Scheme
) -> Plot:
    """Histograms of a layer, the newest of each run as bars.

    A run that is shown alone has a few earlier ones as lines.

    Args:
        states: the runs.
        layer: a layer or roll-up; bins are the same for all, so that its counts are
            the sums of its layers'.
        quantity: `weight` or `gradient`.
        scheme: colours.
    """
    newest: list[_Histogram] = []
    earlier: list[_Histogram] = []
    words: list[Latest] = []
    boxes: list[tuple[str, float]] = []
    for position, (run, state) in enumerate(states.items()):
        color = scheme.run_color(position)
        steps = STEPS if len(states) == 1 else 1
        with state.lock:
            found = _histograms(run, color, state, layer, quantity, steps)
            if not found:
                continue
            is_boxed = quantity == "weight"
            limits = _limits(state, layer, found[-1].step) if is_boxed else []
        newest.append(found[-1])
        earlier += found[:-1]
        boxes += [(color, limit) for limit in limits]
        words.append(Latest(color, _said(found[-1].step, limits)))
    if not newest:
        return Plot(curves_figure([], scheme), [])
    figure = _figure(newest, earlier, boxes, scheme, is_alone=len(states) == 1)
    figure["layout"]["uirevision"] += f"{layer} {quantity}"
    return Plot(figure, words)


def _histograms(
    run: str, color: str, state: RunState, layer: str, quantity: str, steps: int
) -> list[_Histogram]:
    """Those that hold anything, ascending."""
    members = _members(state, layer)
    found = [
        _Histogram(run, color, step, state.snapshots.counts(step, members, quantity))
        for step in state.snapshots.spread(steps)
    ]
    return [histogram for histogram in found if histogram.total]


def _members(state: RunState, layer: str) -> list[str]:
    return members_of(layer, state.layer_names) if is_roll_up(layer) else [layer]


def _limits(state: RunState, layer: str, step: int) -> list[float]:
    """1/weight_decay of its layers, as far as that is decoupled, ascending."""
    columns = ["step", "weight_decay", "outside_share"]
    # Histograms are of measured steps; of an older one where they are not.
    near = (step - NEAR, step + 1)
    rows = state.run.rows("layers", columns, _members(state, layer), near)
    steps = rows["step"].to_numpy()
    if not len(steps):
        return []
    rows = rows.filter(pa.array(steps == steps.max()))
    decay = rows["weight_decay"].to_numpy()
    # Measured where there is a box, and only there.
    has_box = np.isfinite(rows["outside_share"].to_numpy())
    limits: list[float] = np.unique(1 / decay[has_box]).tolist()
    return limits


def _said(step: int, limits: Sequence[float]) -> str:
    edges = ", ".join(f"±{number(limit)}" for limit in limits)
    return f"step {step:,}" + (f", 1/weight decay {edges}" if edges else "")


def _figure(
    newest: Sequence[_Histogram],
    earlier: Sequence[_Histogram],
    boxes: Sequence[tuple[str, float]],
    scheme: Scheme,
    *,
    is_alone: bool,
) -> Figure:
    scale = _scale([*newest, *earlier])
    traces = [
        _outline(h, scale, (nth + 1) / (len(earlier) + 1))
        for nth, h in enumerate(earlier)
    ]
    traces += [_bars(h, scale, is_alone=is_alone) for h in newest]
    reach = float(np.abs(scale.edges).max()) * 2.0**FAR
    near = [(color, limit) for color, limit in boxes if limit <= reach]
    lines = [(color, scale.at(x)) for color, end in near for x in (-end, end)]
    places = [*scale.at(scale.edges), *(place for _, place in lines)]
    layout = scheme.layout(
        xaxis={
            "range": [min(places) - 0.5, max(places) + 0.5],
            "tickangle": 0,
            "showgrid": False,
            **_ticks(scale, min(places), max(places)),
        },
        yaxis={"tickformat": "~%", "rangemode": "tozero", "nticks": 6},
        hovermode="closest",
        barmode="overlay",
        bargap=0,
        showlegend=True,
        margin={"t": 34},
        shapes=[_line(color, place) for color, place in lines],
        uirevision=f"{scale.floor} ",
    )
    return {"data": traces, "layout": layout}


def _scale(histograms: Sequence[_Histogram]) -> _Scale:
    floor = min(_floor(histogram.counts) for histogram in histograms)
    kept = np.flatnonzero(np.abs(EDGES) >= floor)
    whole = _Scale(floor, kept)
    filled = np.flatnonzero(sum(whole.bins(h.counts) for h in histograms))
    return _Scale(floor, kept[filled[0] : filled[-1] + 2])


def _floor(counts: npt.NDArray[np.int64]) -> float:
    """The power of two below which there is next to nothing but zeros."""
    middle = BINS // 2
    magnitudes = counts[middle + 1 :] + counts[:middle][::-1]
    if not magnitudes.any():
        return float(_POWERS[0])
    split = 1 << SPLIT_BITS
    below = np.cumsum(magnitudes)[split - 1 :: split]  # below each power but the first
    fit = int((below <= TINY * magnitudes.sum()).sum())
    return float(_POWERS[fit])


def _bars(histogram: _Histogram, scale: _Scale, *, is_alone: bool) -> dict[str, Any]:
    edges, places = EDGES[scale.kept], scale.at(scale.edges)
    between = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    return {
        "type": "bar",
        "name": f"step {histogram.step:,}" if is_alone else histogram.name,
        "x": packed((places[:-1] + places[1:]) / 2),
        "width": packed(np.diff(places)),
        "y": packed(scale.heights(histogram)),
        "customdata": packed(scale.bins(histogram.counts)),
        "hovertext": between,
        "hovertemplate": "%{hovertext}<br><b>%{customdata:,d}</b> of "
        f"{histogram.total:,}<extra></extra>",
        "marker": {
            "color": translucent(histogram.color, 0.55 if is_alone else 0.4),
            "line": {"width": 0},
        },
    }


def _outline(histogram: _Histogram, scale: _Scale, strength: float) -> dict[str, Any]:
    heights = scale.heights(histogram)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"step {histogram.step:,}",
        "x": packed(scale.at(scale.edges)),
        "y": packed(np.append(heights, heights[-1])),
        "line": {
            "shape": "hv",
            "width": 1.2,
            "color": translucent(histogram.color, round(0.2 + 0.7 * strength, 2)),
        },
        "hoverinfo": "skip",
    }


def _line(color: str, place: np.ndarray) -> dict[str, Any]:
    return {
        "type": "line",
        "x0": float(place),
        "x1": float(place),
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": color, "width": 1.6, "dash": "dash"},
    }


def _ticks(scale: _Scale, low: float, high: float) -> dict[str, Any]:
    """Zero, and as many powers of ten on both sides as a narrow screen has room for."""
    apart = (high - low) / LABELS
    furthest = np.log10(scale.floor) + (max(-low, high) - 1) * np.log10(2)
    every = int(np.ceil(apart * np.log10(2)))
    powers = 10.0 ** np.arange(np.floor(furthest), np.log10(_POWERS[0]), -every)
    powers = powers[scale.at(powers) >= apart]
    values = np.concatenate([-powers, [0.0], powers[::-1]])
    return {
        "tickvals": scale.at(values).tolist(),
        "ticktext": [f"{value:g}" for value in values],
    }
