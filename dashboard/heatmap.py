"""Map of layers and steps: measured against predicted rotation."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from dynoscope.dashboard.figures import Figure, packed, shortened
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import SEQUENTIAL, Scheme
from dynoscope.dashboard.track import Steps
from dynoscope.measurement import FloatArray
from dynoscope.schema import metric

__all__ = ["CLIP", "RotationMap", "rotation_map"]

CLIP: Final = 3.0
"""The colour scale ends at 2**-CLIP and 2**CLIP."""

TICKS: Final = ["≤1/8", "1/4", "1/2", "1x", "2x", "4x", "≥8x"]
_RATIO: Final = (
    "How far each layer turned per step, over what theory expects in equilibrium. "
    "Neutral (1x) is good: the layer turns as its learning rate and weight decay say. "
    "Orange turns too fast, blue too slowly; colours end at 1/8 and 8x. "
    "Click a row to see that layer below."
)
_ANGLE: Final = (
    "How far each layer turned per step. Good: layers of a kind turn alike, and no "
    "faster than the learning rate lets them. Bad: single rows that stand out, or a "
    "map that never calms down. Click a row to see that layer below."
)
HOVER: Final = "%{{y}}<br>around step %{{x:.0f}}<br><b>{}</b><extra></extra>"
ROW_HEIGHT: Final = 22
THICK: Final = 6
"""Pixels of a row from which on there is room for a line between rows."""

HEIGHTS: Final = (220, 820)
"""Least and most height of the map, in pixels."""


class RotationMap(NamedTuple):
    """The map and what has to be said about it."""

    figure: Figure
    about: str
    note: str
    height: int


def rotation_map(
    state: RunState, layer: str | None, scheme: Scheme, window: Steps | None = None
) -> RotationMap:
    """Measured over predicted angular update; the measured one where none is.

    Args:
        state: the run.
        layer: the chosen layer, whose row is framed.
        scheme: colours.
        window: what is zoomed into.
    """
    first, last, ratio, measured, width = _means(state, window)
    has_prediction = bool(np.isfinite(ratio).any()) or not len(first)
    names = state.layer_names
    height = int(np.clip(len(names) * ROW_HEIGHT + 80, *HEIGHTS))
    trace = {
        "type": "heatmap",
        "x": packed((first + last) / 2),
        "y": names,
        "hoverongaps": False,
        "xgap": 0,
        "ygap": int(height / len(names) > THICK) if names else 1,
        "name": "",
        **(_ratio(ratio, scheme) if has_prediction else _angles(measured)),
    }
    trace["colorbar"] = {**_colorbar(scheme), **trace["colorbar"]}
    layout = scheme.layout(
        xaxis={"title": {"text": "step"}, "showgrid": False, "rangemode": "tozero"},
        yaxis={
            "type": "category",
            "range": [len(names) - 0.5, -0.5],
            "showgrid": False,
            "showticklabels": False,
            "ticks": "",
        },
        hovermode="closest",
        annotations=_labels(names, height, scheme),
        margin={"l": 12 + 7 * max(len(shortened(name)) for name in names), "r": 14},
        shapes=_frame(names, layer, scheme),
        uirevision=str(state.run.path),
    )
    note = _note(state, ratio, has_prediction, width)
    about = _RATIO if has_prediction else _ANGLE
    return RotationMap({"data": [trace], "layout": layout}, about, note, height)


def _means(
    state: RunState, window: Steps | None
) -> tuple[np.ndarray, np.ndarray, FloatArray, FloatArray, int]:
    """Ends of buckets, ratios and angles in them, and the steps of one."""
    with state.lock:
        whole = state.rotation()
        found = *whole.steps, whole.ratio(), whole.measured()
        if window is None or whole.width == 1:
            return *found, whole.width
        fine = state.rotation(window)
        inner = *fine.steps, fine.ratio(), fine.measured()
        if not len(inner[0]) or fine.width >= whole.width:
            return *found, whole.width
    before = int(np.searchsorted(found[1], inner[0][0]))
    after = int(np.searchsorted(found[0], inner[1][-1], side="right"))
    first, last, ratio, measured = (
        np.concatenate([outer[:before], inside, outer[after:]])
        for outer, inside in zip(found, inner, strict=True)
    )
    return first, last, ratio, measured, fine.width


def _ratio(ratio: np.ndarray, scheme: Scheme) -> dict[str, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.clip(np.log2(ratio), -CLIP, CLIP)
    return {
        "z": packed(shown.T.astype(np.float32)),
        "customdata": packed(ratio.T.astype(np.float32)),
        "zmin": -CLIP,
        "zmax": CLIP,
        "colorscale": scheme.colorscale(),
        "colorbar": {"tickvals": list(range(-3, 4)), "ticktext": TICKS},
        "hovertemplate": HOVER.format("%{customdata:.3f}x predicted"),
    }


def _angles(measured: np.ndarray) -> dict[str, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.where(measured > 0, np.log10(measured), np.nan)
    unit = metric("angular_update").unit
    finite = shown[np.isfinite(shown)]
    low, high = (finite.min(), finite.max()) if finite.size else (-4.0, 0.0)
    ticks = np.unique(np.round(np.linspace(low, high, 5), 1))
    return {
        "z": packed(shown.T.astype(np.float32)),
        "customdata": packed(measured.T.astype(np.float32)),
        "zmin": float(low),
        "zmax": float(high),
        "colorscale": SEQUENTIAL,
        "colorbar": {
            "tickvals": ticks.tolist(),
            "ticktext": [f"{10**tick:.2g}" for tick in ticks],
        },
        "hovertemplate": HOVER.format(f"%{{customdata:.3g}} {unit}"),
    }


def _colorbar(scheme: Scheme) -> dict[str, Any]:
    return {
        "thickness": 10,
        "outlinewidth": 0,
        "xpad": 6,
        "tickfont": {"size": 12, "color": scheme.muted},
    }


def _labels(names: Sequence[str], height: int, scheme: Scheme) -> list[dict[str, Any]]:
    """Names of rows, where there is room; hovering gives the full one."""
    every = max(1, -(-len(names) * 15 // (height - 80)))
    label = {
        "xref": "paper",
        "x": 0,
        "xanchor": "right",
        "xshift": -6,
        "showarrow": False,
        "font": {"size": 12, "color": scheme.muted},
    }
    return [
        {**label, "y": name, "text": shortened(name), "hovertext": name}
        for name in names[::every]
    ]


def _frame(
    names: Sequence[str], layer: str | None, scheme: Scheme
) -> list[dict[str, Any]]:
    if layer not in names:
        return []
    at = names.index(layer)
    return [
        {
            "type": "rect",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": at - 0.5,
            "y1": at + 0.5,
            "line": {"color": scheme.text, "width": 2},
        }
    ]


def _note(state: RunState, ratio: np.ndarray, has_prediction: bool, width: int) -> str:
    reasons = state.manifest["optimizer"]["reasons"]
    why = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    parts = []
    if not has_prediction:
        parts.append(
            f"No prediction for this run ({why or 'see its problems'}), so the colour "
            "is the measured angle itself, on a logarithmic scale."
        )
    elif missing := int((~np.isfinite(ratio).any(axis=0)).sum()) if len(ratio) else 0:
        reason = f": {why}" if why else ""
        parts.append(f"{missing} layers have no prediction and stay empty{reason}.")
    if width > 1:
        parts.append(f"A column is the mean over {width:,} steps.")
    return " ".join(parts)
