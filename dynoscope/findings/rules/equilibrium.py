"""Layers that do not rotate as theory says, or as the other layers do."""

from collections.abc import Iterator

import numpy as np

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.registry import rule

__all__ = ["imbalanced_rotation", "off_equilibrium"]


@rule("off_equilibrium")
def off_equilibrium(evidence: Evidence) -> Iterator[Finding]:
    """A layer has had the time to settle, and turns at another speed."""
    scheduled = evidence.column("traj_angular_update")
    expected = np.where(
        np.isfinite(scheduled), scheduled, evidence.column("pred_angular_update")
    )
    settled = evidence.settled & np.isfinite(expected)
    angle = evidence.mean(evidence.column("angular_update"), settled)
    speed = evidence.mean(expected, settled)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = angle / speed
        off = np.maximum(ratio, 1 / ratio) >= evidence.thresholds.off_equilibrium
    # What does not move at all is said by another rule.
    for layer in np.flatnonzero(off & (angle > 0) & evidence.is_weight).tolist():
        numbers = {
            "angular_update": angle[layer],
            "expected_angular_update": speed[layer],
            "ratio": ratio[layer],
            "half_lives": evidence.half_lives[-1, layer],
        }
        step = evidence.first(settled, layer)
        if evidence.is_scale_invariant[layer]:
            yield _off(evidence, layer, step, numbers)
        else:
            yield _scale_sensitive(evidence, layer, step, numbers)


def _off(
    evidence: Evidence, layer: int, step: int, numbers: dict[str, float]
) -> Finding:
    slow = numbers["ratio"] < 1
    remedy = (
        "Its gradient may vanish beside eps, or point the same way for long: look at "
        "grad_l2 and momentum_grad_cos, lower eps"
        if slow
        else "Its norm is too small for its updates: warm lr up, or raise it later"
    )
    return Finding(
        severity="warning",
        step=step,
        layer=evidence.names[layer],
        message=(
            f"It turns by {numbers['angular_update']:.3g} rad a step, "
            f"{numbers['ratio']:.2g} times the "
            f"{numbers['expected_angular_update']:.3g} expected after "
            f"{numbers['half_lives']:.1f} half-lives of its norm. {remedy}, or set the "
            "speed with dynoscope.optim.Rotational."
        ),
        evidence=numbers,
        source="Kosson et al. 2024, section 3 and table 1",
    )


def _scale_sensitive(
    evidence: Evidence, layer: int, step: int, numbers: dict[str, float]
) -> Finding:
    cosine = evidence.column("weight_grad_cos")
    typical = np.sqrt(evidence.mean(cosine**2, ~np.isnan(cosine))[layer])
    numbers = numbers | {"weight_grad_cos": typical}
    effective = evidence.mean(
        evidence.column("effective_weight_decay"), evidence.settled
    )[layer]
    said = ""
    if np.isfinite(effective):
        decay = evidence.column("weight_decay")[-1, layer]
        numbers["effective_weight_decay"] = effective
        said = f": with its gradient, a decay of {decay:.3g} acts like {effective:.3g}"
    return Finding(
        severity="note",
        step=step,
        layer=evidence.names[layer],
        message=(
            f"It turns {numbers['ratio']:.2g} times as fast as predicted, but its "
            f"scale matters to the loss (cosine of weight and gradient "
            f"{typical:.2g}){said}. Normalize its outputs if it should turn like the "
            "others."
        ),
        evidence=numbers,
        source="Kosson et al. 2024, appendix L",
    )


@rule("imbalanced_rotation")
def imbalanced_rotation(evidence: Evidence) -> Iterator[Finding]:
    """Some weights turn much faster than others, long after the start."""
    angle = evidence.mean(evidence.column("angular_update"), evidence.settled)
    turning = evidence.is_weight & (angle > 0)
    # What turns otherwise because its scale matters is said by the rule above.
    if (turning & evidence.is_scale_invariant).sum() > 1:
        turning &= evidence.is_scale_invariant
    if turning.sum() < 2:
        return
    slow = int(np.where(turning, angle, np.inf).argmin())
    fast = int(np.where(turning, angle, 0.0).argmax())
    ratio = angle[fast] / angle[slow]
    if ratio < evidence.thresholds.imbalance:
        return
    l2 = "adam_l2" in evidence.kinds
    remedy = "Use AdamW instead of Adam with L2" if l2 else "Give each layer its own lr"
    yield Finding(
        severity="warning",
        step=evidence.first(evidence.settled, slow),
        layer="*",
        message=(
            f"{evidence.names[fast]} turns by {angle[fast]:.3g} rad a step, "
            f"{ratio:.1f} times as fast as {evidence.names[slow]} ({angle[slow]:.3g}). "
            f"{remedy}, or turn all at one speed with dynoscope.optim.Rotational."
        ),
        evidence={"fastest": angle[fast], "slowest": angle[slow], "ratio": ratio},
        source="Kosson et al. 2024, section 5 and figure 4",
    )
