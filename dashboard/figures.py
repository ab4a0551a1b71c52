"""Curves against the step, as plotly figures.

Figures are plain dictionaries: what the browser needs, and quick to make once a
second. Arrays travel as base64, so a number on the screen is the number measured.
"""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from dynoscope.dashboard.theme import Scheme, translucent
from dynoscope.reader import thin

__all__ = [
    "POINTS",
    "Band",
    "Curve",
    "Figure",
    "curves_figure",
    "number",
    "packed",
    "shortened",
]

Figure = dict[str, Any]

POINTS: Final = 1000
"""Points of a curve on the screen: about one a pixel."""

HOVER: Final = "%{y:.4g}"
SPREAD: Final = "%{y:.4g} (%{customdata[0]:.4g} to %{customdata[1]:.4g})"

RUNS: Final = 8
"""Stretches of a spread that are drawn apart, most."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        name: what hovering calls it.
        color: `#rrggbb`.
        steps: ascending, shape (n,).
        values: shape (n,).
        dash: plotly's dash style; predictions are dashed.
        width: in pixels.
        spread: between what the values lie of which these are means, shape (n, 2);
            shaded if the line is solid.
        last: the newest number, if it is not the last of the values.
        is_named: whether it has a place of its own in the legend.
    """

    name: str
    color: str
    steps: np.ndarray
    values: np.ndarray
    dash: str = "solid"
    width: float = 1.6
    spread: np.ndarray | None = None
    last: float | None = None
    is_named: bool = True


@dataclasses.dataclass(frozen=True)
class Band:
    """A shaded range of values with its middle as a thin line."""

    name: str
    color: str
    steps: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


def packed(values: np.ndarray) -> dict[str, str]:
    """An array as plotly.js decodes it: exact, and a third of the size of text.

    >>> packed(np.array([1.0, 2.0], np.float32))
    {'dtype': 'f4', 'bdata': 'AACAPwAAAEA='}
    """
    if values.dtype.kind in "iu":
        values = values.astype(
            np.int32 if np.abs(values).max(initial=0) < 2**31 else float
        )
    values = np.ascontiguousarray(values)
    spec = {
        "dtype": f"{values.dtype.kind}{values.dtype.itemsize}",
        "bdata": base64.b64encode(values.tobytes()).decode("ascii"),
    }
    if values.ndim > 1:
        spec["shape"] = ",".join(map(str, values.shape))
    return spec


def curves_figure(
    curves: Sequence[Curve],
    scheme: Scheme,
    *,
    bands: Sequence[Band] = (),
    log: bool = False,
    keep: str = "",
    legend: bool = False,
) -> Figure:
    """Lines, and bands below them, against the step.

    Args:
        curves: the lines, the most important first; it lies on top.
        scheme: colours.
        bands: drawn below the lines.
        log: logarithmic values; linear where none is positive.
        keep: zoom survives a redraw for as long as this text is the same.
        legend: whether to show names.
    """
    traces = [trace for band in bands[::-1] for trace in _band_traces(band)]
    values = [curve.values for curve in curves] + [band.high for band in bands]
    decades = _decades(values) if log else None
    for curve in curves[::-1]:
        traces += _spread_traces(curve, is_log=decades is not None)
    traces += [_line_trace(curve) for curve in curves[::-1]]
    layout = scheme.layout(
        xaxis={
            "title": {"text": "step"},
            "rangemode": "tozero",
            "hoverformat": ",d",
        },
        yaxis={
            **({"type": "linear", "nticks": 6} if decades is None else _log(decades)),
        },
        showlegend=legend,
        legend={"traceorder": "reversed"},
        uirevision=keep,
    )
    if legend:
        layout["margin"] = {**layout["margin"], "t": 34}
    if not traces:
        layout["annotations"] = [_remark("nothing recorded yet", scheme)]
    return {"data": traces, "layout": layout}


def _decades(values: Sequence[np.ndarray]) -> float | None:
    """Powers of ten between the least and the largest positive value, if any."""
    positive = [array[(array > 0) & np.isfinite(array)] for array in values]
    known = [array for array in positive if array.size]
    if not known:
        return None
    low, high = min(a.min() for a in known), max(a.max() for a in known)
    return float(np.log10(high) - np.log10(low))


def _log(decades: float) -> dict[str, Any]:
    """A logarithmic axis whose labels fit a small plot."""
    axis: dict[str, Any] = {"type": "log", "tickformat": "~g"}
    if decades >= 2:
        return {**axis, "dtick": max(1, round(decades / 4))}
    return {**axis, "dtick": "D2"} if decades >= 0.5 else {**axis, "nticks": 5}


def _line_trace(curve: Curve) -> dict[str, Any]:
    kept = thin(curve.steps, curve.values, POINTS)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers" if len(kept) == 1 else "lines",
        "name": curve.name,
        "x": packed(curve.steps[kept]),
        "y": packed(curve.values[kept]),
        "line": {"color": curve.color, "width": curve.width, "dash": curve.dash},
        "hovertemplate": HOVER,
    }
    if not curve.is_named:
        trace["showlegend"] = False
    if curve.spread is not None and curve.dash == "solid":
        trace["customdata"] = packed(curve.spread[kept].astype(np.float32))
        trace["hovertemplate"] = SPREAD
    return trace


def _spread_traces(curve: Curve, *, is_log: bool) -> list[dict[str, Any]]:
    """Where the values lie of which a curve shows the mean."""
    if curve.spread is None or curve.dash != "solid":
        return []
    low, high = curve.spread.T
    if is_log:  # what is not positive has no place there
        low = np.where(low > 0, low, curve.values)
    known = np.isfinite(low) & np.isfinite(high) & ((low > 0) | (not is_log))
    places = np.flatnonzero(known)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    edge = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0, "color": curve.color},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    fill = {"fill": "tonexty", "fillcolor": translucent(curve.color, 0.3)}
    return [
        {**edge, **style, "name": f"{curve.name} {end}",
         "x": packed(curve.steps[run]), "y": packed(values[run])}
        for run in (runs if len(runs) <= RUNS else [places])
        for style, end, values in (({}, "least", low), (fill, "most", high))
    ]  # fmt: skip


def _band_traces(band: Band) -> list[dict[str, Any]]:
    half = POINTS // 2
    kept = np.union1d(
        thin(band.steps, band.low, half), thin(band.steps, band.high, half)
    )
    steps = packed(band.steps[kept])
    edge = {
        "type": "scatter",
        "mode": "lines",
        "x": steps,
        "line": {"width": 0, "color": band.color},
        "hovertemplate": HOVER,
    }
    fill = {"fill": "tonexty", "fillcolor": translucent(band.color, 0.2)}
    middle = {"line": {"width": 1, "color": translucent(band.color, 0.75)}}
    return [
        {**edge, "name": f"{band.name} p05", "y": packed(band.low[kept])},
        {**edge, **fill, "name": f"{band.name} p95", "y": packed(band.high[kept])},
        {**edge, **middle, "name": f"{band.name} p50", "y": packed(band.middle[kept])},
    ]


def _remark(text: str, scheme: Scheme) -> dict[str, Any]:
    return {
        "text": text,
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "font": {"size": 13, "color": scheme.muted},
    }


def shortened(name: str, most: int = 20) -> str:
    """A name cut from the left, where layers' names are alike.

    >>> shortened("transformer.h.11.mlp.c_fc.weight", 20)
    '…11.mlp.c_fc.weight'
    >>> shortened("0.weight")
    '0.weight'
    """
    return name if len(name) <= most else "…" + name[-(most - 1) :].lstrip(".")


def number(value: float | None) -> str:
    """A number for reading: four digits, no exponent where none is needed.

    >>> [number(x) for x in (0.01234567, 12345.6, 2e-7, 3.0, None, float("nan"))]
    ['0.01235', '12,346', '2e-07', '3', '-', '-']
    """
    if value is None or value != value:
        return "-"
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.4g}"
