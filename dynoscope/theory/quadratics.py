"""Steps of a fixed size on a quadratic: the loss they end at, and what it tells.

Without momentum and decay, a step that never gets smaller ends in oscillation across
the minimum of ``L(w) = L* + <w, A w> / 2``. The loss on the higher side is bounded from
below by the curvature A,

    sharpness <= 8 / eta^2 E max(L(w_t) - L*, L(w_{t+1}) - L*),

so that a plateau of the loss, read backwards, bounds the sharpness. For Lion and
SepNorm it holds for the expectation over starts and noise: a single run can end lower.

Symbols: lr is eta, |l| is the number of weights in a block l. Arrays are float64.

Source: section 5 of the SepNorm paper: lemma 5.1, theorems 5.3 and 5.4.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynoscope.errors import TheoryError
from dynoscope.theory.hyperparameters import Array

__all__ = ["loss_bound", "plateau", "sharpness", "sharpness_bound"]


def sharpness(
    optimizer: str, hessian: Array, blocks: Sequence[NDArray[np.intp]] | None = None
) -> float:
    """The measure of curvature that bounds an optimizer's loss.

    Args:
        optimizer: "normgd", "lion" (as sign descent) or "sepnorm".
        hessian: A, symmetric and positive definite, shape (weights, weights).
        blocks: of "sepnorm": the indices of each block's weights.

    Returns:
        lambda_max(A) for "normgd", trace(A) for "lion", sum_l |l| lambda_max(A_l) for
        "sepnorm"; in the unit of loss / weight^2.

    Raises:
        TheoryError: an optimizer without such a bound, or "sepnorm" without blocks.
    """
    if optimizer == "normgd":
        return float(np.linalg.eigvalsh(hessian)[-1])
    if optimizer == "lion":
        return float(np.trace(hessian))
    if optimizer != "sepnorm":
        raise TheoryError(
            f"no bound on a quadratic for {optimizer!r}; there are some for 'lion', "
            "'normgd', 'sepnorm'"
        )
    if blocks is None:
        raise TheoryError("'sepnorm' needs blocks, the indices of each block's weights")
    squares = (hessian[np.ix_(block, block)] for block in blocks)
    return float(sum(len(a) * np.linalg.eigvalsh(a)[-1] for a in squares))


def loss_bound(sharpness: Array, lr: Array) -> Array:
    """Least expected loss on the higher side of the oscillation, eta^2 sharpness / 8.

    Args:
        sharpness: as `sharpness` has it for the optimizer.
        lr: learning rate, the step's size: of "normgd" the length of the whole step,
            of "lion" and "sepnorm" a weight's root mean square.

    Returns:
        E L_max above the minimum, in the loss's unit, float64, of the broadcast
        shape. From the luckiest start "normgd" ends there, and so does "lion" where
        A is diagonal; the mean over starts was 2 to 9 times that on random A.
    """
    return lr**2 * sharpness / 8


def plateau(losses: Array) -> Array:
    """L_max of a loss that has stopped falling: the mean of successive maxima.

    Args:
        losses: loss of every step, at least two, without noise; shape (steps, ...).

    Returns:
        Mean over t of max(L_t, L_{t+1}), in the loss's unit, float64, shape (...).
    """
    mean: Array = np.maximum(losses[1:], losses[:-1]).mean(axis=0)
    return mean


def sharpness_bound(loss_max: Array, lr: Array) -> Array:
    """Most sharpness that a plateau leaves room for, 8 E L_max / eta^2.

    Args:
        loss_max: E L_max above the minimum, of `plateau`, over several runs where
            there are some. Where the minimum is not known, the bound on a loss of
            at least 0 still holds, but is loose.
        lr: learning rate there, the step's size as in `loss_bound`.

    Returns:
        A bound on `sharpness`, in the unit of loss / weight^2, float64, of the
        broadcast shape.
    """
    return 8 * loss_max / lr**2
