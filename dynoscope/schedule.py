"""Which optimizer steps are measured: `Schedule = Callable[[int], bool]`."""

import math
import operator
from collections.abc import Callable
from typing import TypeAlias

from dynoscope.errors import ScheduleError

__all__ = ["Schedule", "as_schedule", "every", "log_spaced"]

Schedule: TypeAlias = Callable[[int], bool]


def every(n: int) -> Schedule:
    """Measure steps 0, n, 2n, ...

    Args:
        n: interval in optimizer steps, at least 1.

    Raises:
        ScheduleError: n is not a positive whole number.

    >>> [step for step in range(7) if every(3)(step)]
    [0, 3, 6]
    """
    try:
        interval = operator.index(n)
    except TypeError:
        raise ScheduleError(
            f"every={n!r} is not a whole number of steps; "
            "every=1 measures each step, every=10 each tenth"
        ) from None
    if isinstance(n, bool) or interval < 1:
        raise ScheduleError(
            f"every={n!r} would never measure; "
            "every=1 measures each step, every=10 each tenth"
        )
    return lambda step: step % interval == 0


def log_spaced(per_decade: int = 20) -> Schedule:
    """Steps that grow apart: so many for each power of ten, at most each step.

    It remembers what it was asked. Where it is not asked at every step, the first
    one after each mark is due, so that it can follow upon another schedule.

    >>> due = log_spaced(per_decade=4)
    >>> [step for step in range(100) if due(step)]
    [0, 1, 3, 5, 9, 17, 31, 56, 99]
    """
    passed = -1

    def due(step: int) -> bool:
        nonlocal passed
        mark = math.floor(per_decade * math.log10(step + 1) + 1e-9)
        is_new, passed = mark > passed, max(mark, passed)
        return is_new

    return due


def as_schedule(every_or_schedule: int | Schedule) -> Schedule:
    """Take an interval or a schedule; give a schedule."""
    if callable(every_or_schedule):
        return every_or_schedule
    return every(every_or_schedule)
