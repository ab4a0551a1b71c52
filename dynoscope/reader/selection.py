"""Which rows and columns of a table are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow.compute as pc

from dynoscope.errors import DynoscopeError
from dynoscope.reader.footers import EVERYTHING, Window
from dynoscope.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Names",
    "Range",
    "Steps",
    "both",
    "chosen_columns",
    "in_order",
    "in_steps",
    "is_in",
    "listed",
    "window_of",
]

Names: TypeAlias = str | Sequence[str] | None
Steps: TypeAlias = int | slice | range | tuple[int, int] | None
Range: TypeAlias = slice | range | tuple[int, int] | None


def listed(names: str | Sequence[str]) -> list[str]:
    """One name or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def chosen_columns(table: str, metric: Names) -> list[str]:
    """Names of the columns to read: the keys that matter, and the metrics."""
    if metric is None:
        return TABLES[table].names()
    chosen = [TABLES[table][name].name for name in listed(metric)]
    return list(dict.fromkeys(["step", "layer", *chosen]))


def in_order(frames: Sequence[pd.DataFrame], names: Sequence[str]) -> pd.DataFrame:
    """Rows of all frames by step, then by the position of the layer among `names`."""
    import pandas as pd

    frame = pd.concat(frames, ignore_index=True)
    position = frame["layer"].map({name: i for i, name in enumerate(names)})
    order = np.lexsort((position.to_numpy(), frame["step"].to_numpy()))
    return frame.take(order).reset_index(drop=True)


def in_steps(steps: Steps) -> pc.Expression | None:
    """Which rows are of some steps; stop is excluded."""
    if steps is None:
        return None
    if isinstance(steps, int | np.integer):
        return pc.field("step") == int(steps)
    if isinstance(steps, tuple):
        steps = slice(*steps)
    where = None
    if steps.start is not None:
        where = pc.field("step") >= steps.start
    if steps.stop is not None:
        where = both(where, pc.field("step") < steps.stop)
    if steps.step not in (None, 1):
        start = steps.start or 0
        offset = pc.field("step") - start
        multiple = pc.divide(offset, steps.step) * steps.step
        where = both(where, offset == multiple)
    return where


def is_in(column: str, names: Names) -> pc.Expression | None:
    """Which rows have one of some names in a column."""
    return None if names is None else pc.field(column).isin(listed(names))


def both(a: pc.Expression | None, b: pc.Expression | None) -> pc.Expression | None:
    """Which rows are let through by both; None lets all through."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def window_of(steps: Range) -> Window:
    """The steps asked for, from the first to before the last.

    Raises:
        DynoscopeError: they are not one after the other.
    """
    if steps is None:
        return EVERYTHING
    if isinstance(steps, tuple):
        steps = slice(*steps)
    if steps.step not in (None, 1):
        raise DynoscopeError(f"{steps} leaves out steps: pass (start, stop)")
    return Window(
        None,
        EVERYTHING.start if steps.start is None else steps.start,
        EVERYTHING.stop if steps.stop is None else steps.stop,
    )
