"""Gradients that collapse to few coordinates."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule

__all__ = ["sparse_gradient"]


@rule("sparse_gradient")
def sparse_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Few of a weight's coordinates carry nearly all of its gradient."""
    limits = evidence.thresholds
    if evidence.history.measured < limits.still_steps:
        return
    density = evidence.mean(evidence.column("grad_density"), evidence.recent)
    numel = np.array([layer.numel for layer in evidence.subject.layers])
    bad = evidence.is_weight & (numel >= limits.grad_density_numel)
    for layer in np.flatnonzero(bad & (density < limits.grad_density)).tolist():
        share = density[layer] ** 2
        yield Finding(
            severity="warning",
            step=evidence.first(evidence.recent, layer),
            layer=evidence.names[layer],
            message=(
                f"Its gradient is as concentrated as if {share:.2%} of its coordinates "
                f"carried it all (l1/l2 is {density[layer]:.3f} of its largest value, "
                ".798 for Gaussian entries). Look for dead units or inputs that are "
                "mostly 0; sign updates (Lion) blow up the noise in the other "
                "coordinates."
            ),
            evidence={"grad_density": density[layer], "share": share},
            source="LION-rate, section 4",
        )
