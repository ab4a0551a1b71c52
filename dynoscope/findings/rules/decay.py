"""Weight decay that is too slow, in the wrong place, or of the wrong kind."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import WHOLE, Finding
from dynoscope.findings.registry import rule

__all__ = ["adam_l2", "decayed_gains", "slow_weight_decay"]


@rule("slow_weight_decay")
def slow_weight_decay(evidence: Evidence) -> Iterator[Finding]:
    """The run ended before weight decay could show."""
    if not evidence.ended:
        return
    history = evidence.history
    steps = history.last_step + 1 - int(history.starts[0])
    lived = evidence.half_lives[-1]
    decay = evidence.column("weight_decay")[-1]
    needed = evidence.thresholds.run_half_lives
    slow = evidence.is_weight & (lived > 0) & (lived < needed) & (decay > 0)
    for layer in np.flatnonzero(slow).tolist():
        half_life = steps / lived[layer]
        yield Finding(
            severity="note",
            step=history.last_step,
            layer=evidence.names[layer],
            message=(
                f"At weight_decay {decay[layer]:.3g} half of the way to equilibrium "
                f"takes {half_life:.3g} steps; the run had {steps}. Its norm and "
                "rotation were set by the initial weights: raise weight_decay or lr, "
                "or train longer, if decay is to matter."
            ),
            evidence={
                "half_life": half_life,
                "steps": steps,
                "half_lives": lived[layer],
                "weight_decay": decay[layer],
            },
            source="Kosson et al. 2024, section 3",
        )


@rule("decayed_gains")
def decayed_gains(evidence: Evidence) -> Iterator[Finding]:
    """Gains and biases are decayed like weights."""
    decay = evidence.column("weight_decay")[-1]
    for index, layer in enumerate(evidence.subject.layers):
        if len(layer.shape) < 2 and decay[index] > 0:
            yield Finding(
                severity="note",
                step=int(evidence.history.starts[0]),
                layer=layer.name,
                message=(
                    f"Weight decay of {decay[index]:.3g} pulls this gain or bias "
                    "towards 0, though its size has a meaning. Put gains and biases "
                    "into a parameter group with weight_decay=0."
                ),
                evidence={"weight_decay": decay[index]},
                source="Kosson et al. 2024, appendix L",
            )


@rule("adam_l2")
def adam_l2(evidence: Evidence) -> Iterator[Finding]:
    """Adam divides its L2 term by the second moment, with all the rest."""
    decay = evidence.column("weight_decay")[-1]
    affected = np.array([kind == "adam_l2" for kind in evidence.kinds]) & (decay > 0)
    if affected.any():
        largest = decay[affected].max()
        yield Finding(
            severity="warning",
            step=int(evidence.history.starts[0]),
            layer=WHOLE,
            message=(
                f"Adam adds weight_decay {largest:.3g} to the gradient of "
                f"{affected.sum()} layers and then scales it with it: layers with "
                "large gradients hardly decay, and layers turn at different speeds. "
                "Use AdamW."
            ),
            evidence={"weight_decay": largest, "layers": affected.sum()},
            source="Loshchilov and Hutter 2019; Kosson et al. 2024, figure 4",
        )
