"""Which optimizer steps are measured: `Schedule = Callable[[int], bool]`."""

import collections
import dataclasses
import math
import operator
import statistics
from collections.abc import Callable
from typing import Final, TypeAlias

from dynoscope.errors import ScheduleError

__all__ = [
    "JUMP",
    "LONGEST",
    "Budget",
    "EveryNth",
    "Schedule",
    "as_schedule",
    "every",
    "log_spaced",
]

Schedule: TypeAlias = Callable[[int], bool]

FIRST: Final = 100
"""Steps that a budget measures, whatever they cost: much happens there."""

LONGEST: Final = 5_000
"""Most steps that a budget lets go by; trajectories are carried through these."""

JUMP: Final = 0.1
"""Relative change of a learning rate, from a step to the next, that is measured."""

MEMORY: Final = 9
"""Measurements whose median cost, and pace of training, count."""


@dataclasses.dataclass(frozen=True)
class EveryNth:
    """Measures steps 0, interval, 2 * interval, ..."""

    interval: int

    def __call__(self, step: int) -> bool:
        """Whether this step is measured."""
        return step % self.interval == 0


def every(n: int) -> EveryNth:
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
    return EveryNth(interval)


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


class Budget:
    """Spaces measurements so that they take no more than a share of the time.

    What a measurement costs, and how long a step takes without one, are the medians
    of the last few; a pause for an evaluation, or a hiccup, moves neither. The first
    hundred steps are measured in any case. A step that is measured before its time
    puts off the next one that is due.

    Args:
        share: of the training's time, in (0, 1).

    Raises:
        ScheduleError: the share makes no sense.

    >>> budget = Budget(0.01)
    >>> measured = [step for step in range(150) if budget(step)
    ...             and budget.spent(step, now=step * 1.0, seconds=0.1) is None]
    >>> measured[98:]  # each takes a tenth of a step, which is to be spread over ten
    [98, 99, 111, 123, 135, 147]
    """

    def __init__(self, share: float) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise ScheduleError(f"budget={share!r} is not a share of the time; try .01")
        if not 0 < share < 1:
            raise ScheduleError(
                f"budget={share!r} is not between 0 and 1; budget=.01 spends a percent "
                "of the time on measuring, every=1 measures each step"
            )
        self._share = share
        self._first: int | None = None
        self._next = 0
        self._last: tuple[int, float] | None = None
        self._costs: collections.deque[float] = collections.deque(maxlen=MEMORY)
        self._paces: collections.deque[float] = collections.deque(maxlen=MEMORY)

    def __call__(self, step: int) -> bool:
        """Whether to measure a step."""
        if self._first is None:
            self._first = self._next = step
        return step >= self._next

    def spent(
        self,
        step: int,
        now: float,
        seconds: float,
        agree: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Take note of a measurement.

        Args:
            step: the step that was measured.
            now: seconds on any clock, when it had been.
            seconds: what measuring has cost.
            agree: gives the interval to keep to, in place of `interval`, where several
                have to keep to the same; None where that is one's own affair. It is
                asked after the first hundred steps.
        """
        first = step if self._first is None else self._first
        owed = max(self._next - step, 0)
        self._costs.append(seconds)
        if self._last is not None:
            steps, elapsed = step - self._last[0], now - self._last[1]
            if steps > 0:
                self._paces.append(max(elapsed - seconds, 0.0) / steps)
        self._last = step, now
        if step + 1 - first < FIRST:
            self._next = step + 1
        else:
            self._next = step + min((agree() or self.interval) + owed, LONGEST)

    @property
    def interval(self) -> int:
        """Steps from one measurement to the next that the budget allows."""
        if not self._paces:
            return 1
        allowed = self._share * statistics.median(self._paces)
        cost = statistics.median(self._costs)
        return int(min(max(math.ceil(cost / max(allowed, 1e-12)), 1), LONGEST))


def as_schedule(every_or_schedule: int | Schedule | None, budget: float) -> Schedule:
    """Take an interval, a schedule, or a budget if there is neither; give a schedule.

    Raises:
        ScheduleError: what is given makes no sense.
    """
    if every_or_schedule is None:
        return Budget(budget)
    if callable(every_or_schedule):
        return every_or_schedule
    return every(every_or_schedule)
