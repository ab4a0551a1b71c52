"""Logged scalars of two runs, name by name."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.reader import Run

__all__ = ["COLUMNS", "compare_scalars"]

IntArray: TypeAlias = npt.NDArray[np.int64]

COLUMNS = (
    "name", "a_last", "b_last", "a_min", "b_min", "a_mean", "b_mean",
    "relative", "steps",
)  # fmt: skip


def compare_scalars(
    a: Run, b: Run, choose: Callable[[IntArray], IntArray] = lambda steps: steps
) -> pd.DataFrame:
    """Scalars that both runs logged, over the steps at which both did.

    Args:
        a: a run.
        b: the other.
        choose: from step numbers to those that are to be considered.

    Returns:
        One row per name, in run a's order, with `COLUMNS`: the value at the last
        common step, the least, the mean, each over common steps with a finite
        value in both; `relative`, (b_mean - a_mean) / abs(a_mean) (0 where they
        are equal, NaN where a_mean alone is 0: scalars may be negative); and
        the number of common steps. Of values logged twice at a step the last
        counts.
    """
    wide_a, wide_b = _wide(a), _wide(b)
    rows = []
    for name in [name for name in wide_a if name in wide_b]:
        both = pd.concat(
            [wide_a[name], wide_b[name]], axis=1, join="inner"
        ).sort_index()
        both = both.loc[choose(both.index.to_numpy(np.int64))]
        values = both.to_numpy(dtype=float)
        values = values[np.isfinite(values).all(axis=1)]
        rows.append((name, *_row(values), len(values)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _wide(run: Run) -> dict[str, pd.Series]:
    frame = run.scalars().drop_duplicates(["step", "name"], keep="last")
    groups = frame.set_index("step").groupby("name", sort=False)["value"]
    return {str(name): values for name, values in groups}


def _row(values: npt.NDArray[np.float64]) -> list[float]:
    if not len(values):
        return [np.nan] * 7
    mean_a, mean_b = values.mean(axis=0)
    if mean_a == mean_b:
        change = 0.0
    else:
        change = (mean_b - mean_a) / abs(mean_a) if mean_a else np.nan
    return [*values[-1], *values.min(axis=0), mean_a, mean_b, change]
