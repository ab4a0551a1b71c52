"""NaN and infinite entries."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule

__all__ = ["nonfinite"]


@rule("nonfinite")
def nonfinite(evidence: Evidence) -> Iterator[Finding]:
    """A gradient, a momentum or a weight is NaN or infinite."""
    first = evidence.history.first_nonfinite
    lr = evidence.column("lr")[-1]
    for layer in np.flatnonzero(first >= 0).tolist():
        step = int(first[layer])
        yield Finding(
            severity="error",
            step=step,
            layer=evidence.names[layer],
            message=(
                f"The gradient, the momentum or the weight has NaN or infinite entries "
                f"since step {step}, at lr {lr[layer]:.3g}. Go back to a checkpoint "
                "from before that step, and lower lr, clip gradients, or mend the "
                "operation that overflows (torch.autograd.detect_anomaly finds it)."
            ),
            evidence={"first_step": step, "lr": lr[layer]},
            source="IEEE 754: what is computed from NaN is NaN",
        )
