"""Weights at the edge of the box that Lion's weight decay holds them in."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule
from dynoscope.measurement import BOX_TOLERANCE, FloatArray

__all__ = ["pinned_at_box"]


@rule("pinned_at_box")
def pinned_at_box(evidence: Evidence) -> Iterator[Finding]:
    """Much of a layer sits at |w| = 1/weight_decay."""
    lion = np.array([kind == "lion" for kind in evidence.kinds])
    share = _share_at_edge(evidence)
    decay = evidence.column("weight_decay")[-1]
    pinned = lion & (share >= evidence.thresholds.box_share)
    for layer in np.flatnonzero(pinned).tolist():
        yield Finding(
            severity="warning",
            step=evidence.first(evidence.recent, layer),
            layer=evidence.names[layer],
            message=(
                f"{share[layer]:.0%} of its weights sit at 1/weight_decay = "
                f"{1 / decay[layer]:.3g}, the farthest that Lion lets them go. Lower "
                "weight_decay for this layer if it is to reach further, or use "
                "dynoscope.optim.SepNorm, which bounds norms instead."
            ),
            evidence={"box_share": share[layer], "weight_decay": decay[layer]},
            source="Lion-K, section 3",
        )


def _share_at_edge(evidence: Evidence) -> FloatArray:
    """Weights at the edge; none that are still far outside, where they began."""
    recent = evidence.recent
    share = evidence.mean(evidence.column("box_share"), recent)
    outside = evidence.mean(evidence.column("outside_share"), recent)
    size = evidence.column("weight_max") * evidence.column("weight_decay")
    # One that comes in from outside never quite gets there: near is as good.
    is_in = evidence.mean(size, recent) <= 1 + BOX_TOLERANCE
    return np.where(is_in, share, share - outside)
