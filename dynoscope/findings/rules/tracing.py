"""Momentum tracing: dead channels of normalization, moved by a fading momentum."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule

__all__ = ["dying_normalization"]


@rule("dying_normalization")
def dying_normalization(evidence: Evidence) -> Iterator[Finding]:
    """Channels die, are moved blindly, and come back somewhere else."""
    totals, limits = evidence.channels, evidence.thresholds
    share = totals.ghost_share
    bad = (share >= limits.ghost_share) & (totals.revived >= limits.revivals)
    for layer in np.flatnonzero(bad).tolist():
        yield Finding(
            severity="warning",
            step=int(totals.first_ghost[layer]),
            layer=totals.names[layer],
            message=(
                f"{totals.dead[layer]:.0f} of {totals.channels[layer]:.0f} channels "
                f"get no gradient; the momentum went on moving such channels in "
                f"{share[layer]:.1%} of all cases, and {totals.revived[layer]:.0f} "
                "came back after a long silence. Use dynoscope.optim.SepNorm instead "
                "of sign updates, or LeakyReLU instead of ReLU, or a smaller lr."
            ),
            evidence={
                "channels": totals.channels[layer],
                "dead": totals.dead[layer],
                "ghost_share": share[layer],
                "revived": totals.revived[layer],
            },
            source="SepNorm, section 3 and figure 2",
        )
