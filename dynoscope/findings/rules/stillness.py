"""Layers that do not move, get no gradient, or whose updates round away."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from dynoscope.findings.evidence import Evidence, Mask
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule

__all__ = ["dead_layer", "frozen_layer", "rounded_updates"]

LOW_PRECISION: Final = frozenset({"bfloat16", "float16"})


@rule("frozen_layer")
def frozen_layer(evidence: Evidence) -> Iterator[Finding]:
    """A layer is in the optimizer, and does not move."""
    update, gradient = evidence.column("update_norm"), evidence.column("grad_l2")
    still = (update == 0) & (evidence.column("lr") > 0)
    low = _is_low_precision(evidence)
    for layer, first, count in _for_long(evidence, still):
        absent = np.isnan(gradient[-1, layer])
        if low[layer] and gradient[-1, layer] > 0:
            continue  # its updates round away: another rule's finding
        yield Finding(
            severity="note" if absent else "warning",
            step=first,
            layer=evidence.names[layer],
            message=(
                f"It has not moved for {count} measured steps"
                + (" and has no gradient" if absent else "")
                + ". Check that the loss depends on it; if it is meant to be frozen, "
                "leave it out of the optimizer."
            ),
            evidence={"measured_steps": count},
            source="definition of update_norm",
        )


@rule("dead_layer")
def dead_layer(evidence: Evidence) -> Iterator[Finding]:
    """A layer's gradient is exactly 0."""
    for layer, first, count in _for_long(evidence, evidence.column("grad_l2") == 0):
        yield Finding(
            severity="warning",
            step=first,
            layer=evidence.names[layer],
            message=(
                f"Its gradient has been exactly 0 for {count} measured steps: nothing "
                "it does reaches the loss. Look for a ReLU that is dead behind it or a "
                "detach(), and restart it with a smaller lr."
            ),
            evidence={"measured_steps": count},
            source="definition of grad_l2",
        )


@rule("rounded_updates")
def rounded_updates(evidence: Evidence) -> Iterator[Finding]:
    """Updates are smaller than the weights' own precision."""
    unmoved = evidence.column("unmoved_share")
    # Where there is nothing to round, nothing rounds away.
    given = (evidence.column("grad_l2") > 0) & (evidence.column("lr") > 0)
    share = evidence.mean(unmoved, evidence.recent & given)
    embedding = np.array(["Embedding" in la.module for la in evidence.subject.layers])
    bad = (share >= evidence.thresholds.unmoved_share) & ~embedding
    bad &= _is_low_precision(evidence)
    for layer in np.flatnonzero(bad).tolist():
        dtype = evidence.subject.layers[layer].dtype
        yield Finding(
            severity="warning",
            step=evidence.first(given & evidence.recent, layer),
            layer=evidence.names[layer],
            message=(
                f"{share[layer]:.0%} of its {dtype} weights stay as they are at each "
                "step: updates round away. Keep the weights in float32 (autocast "
                "computes in low precision all the same), or round stochastically."
            ),
            evidence={"unmoved_share": share[layer]},
            source="Zamirai et al. 2020, Revisiting BFloat16 Training",
        )


def _for_long(evidence: Evidence, still: Mask) -> Iterator[tuple[int, int, int]]:
    """Layers for which something has held for long: which, since when, how long."""
    ends = np.flip(np.logical_and.accumulate(np.flip(still, axis=0)), axis=0)
    counts = (ends * evidence.history.counts[:, None]).sum(axis=0)
    for layer in np.flatnonzero(counts >= evidence.thresholds.still_steps).tolist():
        yield int(layer), evidence.first(ends, layer), int(counts[layer])


def _is_low_precision(evidence: Evidence) -> Mask:
    return np.array([la.dtype in LOW_PRECISION for la in evidence.subject.layers])
