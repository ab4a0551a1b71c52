"""Rotation far above equilibrium at the start: a warmup is missing."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule
from dynoscope.measurement import FloatArray

__all__ = ["missing_warmup"]


@rule("missing_warmup")
def missing_warmup(evidence: Evidence) -> Iterator[Finding]:
    """Weights turn much faster, early on, than they ever will in equilibrium."""
    if evidence.history.starts[0] > 0:
        return  # resumed: the beginning was not seen
    ratio = _to_the_fastest(evidence)
    for layer in np.flatnonzero(evidence.is_weight).tolist():
        start = _early_excess(evidence, ratio[:, layer], layer)
        if start is None:
            continue
        lr = evidence.column("lr")[:, layer]
        risen = int(evidence.history.starts[(lr > 0.99 * np.nanmax(lr)).argmax()])
        remedy = (
            f"Warm lr up for longer than its {risen} steps, or to a smaller value"
            if risen
            else f"Warm lr up over about {start.steps} steps"
        )
        yield Finding(
            severity="warning",
            step=start.first,
            layer=evidence.names[layer],
            message=(
                f"It turned up to {start.peak:.1f} times as fast as it does in "
                f"equilibrium, and took {start.steps} steps to slow down. {remedy}, or "
                "use dynoscope.optim.Rotational: it turns weights at that speed from "
                "the start."
            ),
            evidence={"peak_ratio": start.peak, "steps": start.steps},
            source='Kosson et al. 2024, "Need for Learning Rate Warmup"',
        )


class _Start(NamedTuple):
    first: int
    steps: int
    peak: float


def _to_the_fastest(evidence: Evidence) -> FloatArray:
    """Angular update over the fastest equilibrium: a low lr is no excess."""
    fastest = np.fmax.reduce(evidence.column("pred_angular_update"), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: FloatArray = evidence.column("angular_update") / fastest
    return ratio


def _early_excess(evidence: Evidence, ratio: FloatArray, layer: int) -> _Start | None:
    """The time above the limit, once it is over or has lasted for a half-life."""
    history, limits = evidence.history, evidence.thresholds
    half_lives = evidence.half_lives[:, layer]
    above = np.isfinite(ratio) & (ratio >= limits.warmup_ratio)
    early = above & (half_lives <= 1)
    if not early.any():
        return None
    first = int(early.argmax())
    below = np.flatnonzero((~above & np.isfinite(ratio))[first:])
    if not below.size and half_lives[-1] < 1:
        return None  # let it go on, to see how long it takes
    end = first + int(below[0]) if below.size else len(ratio)
    stops = np.append(history.starts, history.last_step + 1)
    steps = int(stops[end])
    if steps - stops[first] < limits.warmup_steps:
        return None
    return _Start(int(stops[first]), steps, float(ratio[first:end].max()))
