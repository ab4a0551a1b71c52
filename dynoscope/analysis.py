"""What a recorded run says about whole questions: balance, box, rate, sharpness."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from dynoscope import theory
from dynoscope.errors import DynoscopeError
from dynoscope.metrics import balance as balances
from dynoscope.reader import Run

__all__ = ["Evenness", "Plateau", "balance", "box", "rate", "sharpness"]

STILL = 1e-12
"""Mean angles below, in radians, are those of a layer that does not turn."""


class Evenness(NamedTuple):
    """How evenly layers and neurons turn; NaN where there is nothing to tell it from.

    Attributes:
        layers: number of layers that turn, of those with more than one dimension.
        layers_cv: standard deviation over mean of their mean angles.
        layers_log_std: standard deviation of the logarithms of these.
        neurons_cv: mean over layers and steps of the same over a layer's neurons.
        explained: share of the spread over layers that a missing scale invariance
            explains, through the effective weight decay; in [0, 1].
    """

    layers: int
    layers_cv: float
    layers_log_std: float
    neurons_cv: float
    explained: float


class Plateau(NamedTuple):
    """A loss that has stopped falling, and what that leaves room for.

    Attributes:
        loss: mean of successive maxima, in the loss's unit.
        lr: mean learning rate.
        sharpness_bound: 8 loss / lr^2, the most that the optimizer's measure of
            curvature may be, in expectation over starts.
        effective_grad_norm: root mean square of the whole model's ||w|| ||g||.
    """

    loss: float
    lr: float
    sharpness_bound: float
    effective_grad_norm: float


def balance(run: Run, steps: slice | None = None) -> Evenness:
    """How evenly the optimizer turned layers and neurons.

    Args:
        run: what was recorded.
        steps: the steps to take means over; None for the last third, by when most
            weights have settled.

    Returns:
        The spread of rotation over layers, over neurons, and a cause of it.

    Source: Kosson et al. 2024, section 5 and figure 1.
    """
    within = _last_third(run) if steps is None else steps
    wide = {
        layer["name"] for layer in run.manifest["layers"] if len(layer["shape"]) > 1
    }
    columns = ["angular_update", "effective_weight_decay", "weight_decay"]
    rows = run.layers(columns, steps=within)
    means = rows[rows["layer"].isin(wide)].groupby("layer")[columns].mean()
    angles, effective, decay = means.to_numpy(dtype=float).T
    turning = angles > STILL
    angles = angles[turning]
    spread = balances.across(angles)
    with np.errstate(divide="ignore", invalid="ignore"):
        cause = np.log(effective / decay)[turning]
    known = np.isfinite(cause)
    explained = np.nan
    if known.sum() > 2:  # a line goes through two
        explained, _ = balances.explained_share(angles[known], cause[known])
    neurons = run.neurons("angular_update_cv", steps=within)["angular_update_cv"]
    return Evenness(
        len(angles),
        float(spread.cv),
        float(spread.log_std),
        float(neurons.mean()),
        float(explained),
    )


def box(run: Run) -> pd.DataFrame:
    """When every layer got into Lion's box, |w| <= 1 / weight_decay, and should have.

    Args:
        run: what was recorded, with decoupled weight decay.

    Returns:
        By layer: `weight_max` and `outside_share` at the first step, `predicted`
        (steps until the largest weight is certainly no more than 1 % outside, at the
        first step's lr), and `seen` (the first step from which on no weight was
        outside; NaN if that has not come).

    Source: Chen et al. 2024 (Lion-K), theorem 4.1, phase 1.
    """
    columns = ["weight_max", "outside_share", "lr", "weight_decay"]
    rows = run.layers(columns)
    rows = rows[rows["outside_share"].notna()]
    if rows.empty:
        return pd.DataFrame(
            columns=["weight_max", "outside_share", "predicted", "seen"]
        )
    first = rows.groupby("layer", sort=False).first()
    excess = theory.box.excess(
        first["weight_max"].to_numpy(float), first["weight_decay"].to_numpy(float)
    )
    predicted = theory.box.steps_until(
        np.array(0.01),
        excess,
        first["lr"].to_numpy(float),
        first["weight_decay"].to_numpy(float),
    )
    outside = rows[rows["outside_share"] > 0].groupby("layer")["step"].max()
    after = rows.groupby("layer", sort=False)["step"].apply(
        lambda steps: steps[
            steps > outside.get(rows.loc[steps.index[0], "layer"], -1)
        ].min()
    )
    return first[["weight_max", "outside_share"]].assign(
        predicted=predicted, seen=after
    )


def rate(run: Run) -> pd.DataFrame:
    """How the full gradient fell, in the measure of Lion's convergence rate.

    Args:
        run: what was recorded, with `scope.measure_full_gradient` now and then.

    Returns:
        By measurement of the whole model: `step`, the `kkt_gap` and `grad_l1` with
        their running means, and `constant`, the smallest c for which the running
        mean of grad_l1 has stayed below c sqrt(d) K^(-1/4) so far.

    Raises:
        DynoscopeError: no full gradient was measured.

    Source: LION-rate, theorem 2 and corollary 3; its journal version, appendix A.
    """
    rows = run.full_gradients(["numel", "kkt_gap", "grad_l1"], layer="*")
    if rows.empty:
        raise DynoscopeError(
            f"{run.path} holds no full gradient; call scope.measure_full_gradient in "
            "the loop now and then"
        )
    norms, numel = rows["grad_l1"].to_numpy(float), rows["numel"].to_numpy(float)
    constants = [
        float(theory.geometry.rate_constant(norms[: k + 1], numel[0]))
        for k in range(len(rows))
    ]
    return rows.assign(
        kkt_gap_mean=theory.geometry.running_mean(rows["kkt_gap"].to_numpy(float)),
        grad_l1_mean=theory.geometry.running_mean(norms),
        constant=constants,
    ).drop(columns=["layer", "numel"])


def sharpness(run: Run, loss: str = "loss", steps: slice | None = None) -> Plateau:
    """What a plateau of the loss leaves room for, and the sharpness on the sphere.

    Args:
        run: what was recorded.
        loss: name under which the loss was logged, of the whole data set at best.
        steps: where the loss has stopped falling; None for the last third.

    Returns:
        The plateau. Its bound is on the trace of the Hessian for Lion, on |l|
        lambda_max summed over blocks for SepNorm, on lambda_max for NormGD; it holds
        in expectation over starts, and a single run may violate it.

    Raises:
        DynoscopeError: the loss was not logged there twice.

    Source: "Sep Norm: Generalization of Lion and Normalised Gradient Methods",
    section 5; Kosson et al. 2024, eq. 2.
    """
    within = _last_third(run) if steps is None else steps
    losses = run.scalars(loss, within)["value"].to_numpy(float)
    if len(losses) < 2:
        raise DynoscopeError(
            f"{loss!r} was logged {len(losses)} times in these steps of {run.path}; a "
            "plateau takes two at least"
        )
    whole = run.layers(["weight_norm", "grad_l2"], "*", within)
    lr = float(run.groups(within)["lr"].mean())
    level = float(theory.quadratics.plateau(losses))
    effective = whole["weight_norm"] * whole["grad_l2"]
    bound = theory.quadratics.sharpness_bound(np.array(level), np.array(lr))
    return Plateau(level, lr, float(bound), float(np.sqrt((effective**2).mean())))


def _settled(steps: np.ndarray, outside: np.ndarray) -> float:
    """The first step from which on nothing is outside, NaN if there is none."""
    (late,) = np.nonzero(outside > 0)
    start = late[-1] + 1 if late.size else 0
    return float(steps[start]) if start < len(steps) else float("nan")


def _last_third(run: Run) -> slice:
    last = run.last_step
    return slice(0 if last is None else 2 * last // 3, None)
