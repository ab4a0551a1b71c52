"""How evenly an optimizer turns the parts of a model.

Where weight decay and gradient noise balance, AdamW, SGD with momentum and Lion
turn every scale-invariant weight at the same rate, whatever the size of its
gradients: rotation is balanced across neurons and layers. Adam with L2 turns those
with small gradients faster. Rotation is imbalanced too before the norms have
settled, and where weights are not scale-invariant.

Source: Kosson et al. 2024, figure 4 and appendices I.1 (Adam with L2), L (weights
that are not scale-invariant) and N (what imbalance costs).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = ["Balance", "across", "explained_share"]


class Balance(NamedTuple):
    """Spread of rotation over weights; float64, NaN where no weight turns.

    Attributes:
        cv: coefficient of variation: standard deviation of the angles over their
            mean, dimensionless; 0 if balanced.
        log_std: standard deviation of the angles' natural logarithms: .69 if a
            typical weight turns at twice or half the common rate. One weight that
            hardly turns weighs more here than in `cv`.
    """

    cv: FloatArray
    log_std: FloatArray


def across(
    angular_update: npt.ArrayLike, members: npt.ArrayLike | None = None
) -> Balance:
    """Balance of rotation across the neurons of a layer, or the layers of a model.

    Take mean angles over some steps: those of one step scatter even in balance.

    Args:
        angular_update: angles, in radians, shape (..., weights); NaN is left out,
            and so is 0 (a weight that stays) from `log_std`.
        members: which weights count, shape (weights,), bool: the scale-invariant
            ones, say. All by default.

    Returns:
        The balance, of shape (...).

    Source: Kosson et al. 2024, figure 4, right.

    >>> [float(spread.round(3)) for spread in across([0.01, 0.02])]
    [0.333, 0.347]
    """
    angles = np.atleast_1d(np.asarray(angular_update, np.float64))
    if members is not None:
        angles = angles[..., np.asarray(members, np.bool_)]
    mean, std = _moments(angles)
    with np.errstate(divide="ignore", invalid="ignore"):
        cv = np.where(mean == 0, np.nan, std / mean)
        _, log_std = _moments(np.where(angles > 0, np.log(angles), np.nan))
    return Balance(cv, log_std)


def explained_share(
    angular_update: npt.ArrayLike, *causes: npt.ArrayLike
) -> tuple[float, FloatArray]:
    """Share of the imbalance that some properties of the weights explain.

    The logarithm of the angle is fitted by least squares with the causes and a
    constant. What a missing scale invariance should do is known, so take as causes
    the logarithm of lambda_err = lambda_e / lambda (effective weight decay over
    weight decay), whose coefficient is then 1/2 for AdamW and SGD, and
    |weight_grad_cos| or |weight_scaled_grad_cos|, which is 0 if scale-invariant.

    Args:
        angular_update: mean angles, in radians, shape (weights,).
        *causes: any number of properties, each of shape (weights,).

    Returns:
        The share of the variance of log(angular_update) that is explained, in
        [0, 1], and the coefficient of each cause. Weights where an angle or a cause
        is not finite are left out. NaN if no more weights are left than there are
        coefficients to fit, or if their angles do not differ.

    Source: Kosson et al. 2024, eq. 89 to 91: eta_r grows as sqrt(lambda_err).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        target = np.log(np.asarray(angular_update, np.float64))
    rows = np.stack([np.asarray(cause, np.float64) for cause in causes], axis=1)
    known = np.isfinite(target) & np.isfinite(rows).all(axis=1)
    target, rows = target[known], rows[known]
    unknown = float("nan"), np.full(len(causes), np.nan)
    if len(target) <= len(causes) + 1:
        return unknown
    # Centred on their means, causes and target need no constant.
    target, rows = target - target.mean(), rows - rows.mean(axis=0)
    total = float(target @ target)
    if total <= np.finfo(np.float64).eps * len(target):
        return unknown
    coefficients: FloatArray = np.linalg.lstsq(rows, target)[0]
    residual = target - rows @ coefficients
    return min(max(1 - float(residual @ residual) / total, 0.0), 1.0), coefficients


def _moments(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and population standard deviation along the last axis, without NaN."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    filled = np.where(known, values, 0.0)
    with np.errstate(invalid="ignore"):
        mean = filled.sum(axis=-1) / count
        apart = np.where(known, values - mean[..., np.newaxis], 0.0)
        return mean, np.sqrt((apart**2).sum(axis=-1) / count)
