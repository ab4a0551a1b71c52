"""Weights at the edge of the box that Lion's weight decay holds them in."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule

__all__ = ["pinned_at_box"]


@rule("pinned_at_box")
def pinned_at_box(evidence: Evidence) -> Iterator[Finding]:
    """Much of a layer sits at |w| = 1/weight_decay, or outside."""
    lion = np.array([kind == "lion" for kind in evidence.kinds])
    share = evidence.mean(evidence.column("box_share"), evidence.recent)
    outside = evidence.mean(evidence.column("outside_share"), evidence.recent)
    decay = evidence.column("weight_decay")[-1]
    # Initial weights may lie outside; give them the time to come in.
    lion &= evidence.settled.any(axis=0)
    for layer in np.flatnonzero(
        lion & (share >= evidence.thresholds.box_share)
    ).tolist():
        yield Finding(
            severity="warning",
            step=evidence.first(evidence.recent, layer),
            layer=evidence.names[layer],
            message=(
                f"{share[layer]:.0%} of its weights sit at or beyond 1/weight_decay = "
                f"{1 / decay[layer]:.3g}, the farthest that Lion lets them go "
                f"({outside[layer]:.0%} are still outside). Lower weight_decay for "
                "this layer if it is to reach further."
            ),
            evidence={
                "box_share": share[layer],
                "outside_share": outside[layer],
                "weight_decay": decay[layer],
            },
            source="Lion-K, section 3",
        )
