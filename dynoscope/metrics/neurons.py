"""How weight norm and angular update are spread over a layer's neurons.

A neuron is an output row: index i of the weight's first dimension, all of
`w[i]` flattened (a filter of a convolution, a unit of a linear layer).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray
from dynoscope.metrics.turning import Turning, angle

__all__ = ["NEURON_METRICS", "STATISTICS", "statistics", "summarize"]

QUANTILES: Final = {"p05": 0.05, "p50": 0.50, "p95": 0.95}
STATISTICS: Final = (*QUANTILES, "min", "max", "mean", "cv")
NEURON_METRICS: Final = tuple(
    f"{quantity}_{statistic}"
    for quantity in ("weight_norm", "angular_update")
    for statistic in STATISTICS
)
"""Every measured column of the `neurons` table."""


def statistics(values: FloatArray) -> dict[str, FloatArray]:
    """Quantiles, extremes, mean and coefficient of variation along the last axis.

    Quantiles interpolate linearly between order statistics; `cv` is the
    population standard deviation over the mean (NaN where the mean is 0).
    Rows without a value (NaN) are left out; all NaN gives NaN.

    Args:
        values: shape (..., rows), float64.
    """
    valid = ~np.isnan(values)
    if not valid.all():
        return _ragged_statistics(values, valid)
    return _of_ordered(np.sort(values, axis=-1))


def summarize(rows: FloatArray, row_length: npt.ArrayLike) -> dict[str, FloatArray]:
    """All neuron metrics of some layers by name, shape (...).

    Args:
        rows: row sums in the order of `measurement.UNIT_SUMS`, shape
            (..., 3, rows), float64.
        row_length: weights in a row, broadcast against (..., rows).
    """
    turning = Turning(rows[..., 0, :], rows[..., 1, :], rows[..., 2, :])
    both = np.empty((2, *turning.weight_sq.shape))
    np.sqrt(turning.weight_sq, out=both[0])
    both[1] = angle(turning, row_length)
    # A row of zeros has a norm, but no angle: there each has values of its own.
    if np.isnan(both).any():
        norms, angles = map(statistics, both)
    else:
        both.sort(axis=-1)
        found = _of_ordered(both)
        norms, angles = ({name: c[i] for name, c in found.items()} for i in range(2))
    return {
        **{f"weight_norm_{name}": column for name, column in norms.items()},
        **{f"angular_update_{name}": column for name, column in angles.items()},
    }


def _of_ordered(values: FloatArray) -> dict[str, FloatArray]:
    """Statistics along the last axis, along which the values grow, without NaN."""
    mean = values.mean(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cv = np.where(
            mean == 0, np.nan, values.std(axis=-1, mean=mean[..., np.newaxis]) / mean
        )
    return {
        **{name: _quantile(values, q) for name, q in QUANTILES.items()},
        "min": values[..., 0],
        "max": values[..., -1],
        "mean": mean,
        "cv": cv,
    }


def _quantile(ordered: FloatArray, q: float) -> FloatArray:
    position = q * (ordered.shape[-1] - 1)
    low = int(position)
    high = min(low + 1, ordered.shape[-1] - 1)
    share = position - low
    value: FloatArray = ordered[..., low] * (1 - share) + ordered[..., high] * share
    return value


def _ragged_statistics(values: FloatArray, valid: np.ndarray) -> dict[str, FloatArray]:
    flat, mask = (
        values.reshape(-1, values.shape[-1]),
        valid.reshape(-1, values.shape[-1]),
    )
    columns = {name: np.full(len(flat), np.nan) for name in STATISTICS}
    for i, (row, keep) in enumerate(zip(flat, mask, strict=True)):
        if keep.any():
            for name, value in statistics(row[keep]).items():
                columns[name][i] = value
    return {name: c.reshape(values.shape[:-1]) for name, c in columns.items()}
