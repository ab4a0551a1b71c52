"""Schedules of arms that are switched on and off: their steps stand still while off."""

import inspect
import time
from collections.abc import Callable
from typing import Protocol

import dynoscope
from dynoscope.schedule import Budget

__all__ = ["OwnBudget", "Spaced", "Switched"]


class Switched(Protocol):
    """A schedule that can be switched off; it starts switched on."""

    def __call__(self, step: int) -> bool:
        """Whether to measure a step."""
        ...

    def switch(self, *, on: bool) -> None:
        """Measure nothing while off."""
        ...


class Spaced:
    """The first step, where buffers are made, and one in so many after it.

    Args:
        interval: from one of its own steps to the next that is measured.
    """

    def __init__(self, interval: int) -> None:
        self._interval, self._own, self._on = interval, 0, True

    def __call__(self, step: int) -> bool:
        """Whether to measure a step: by its number among those while on."""
        if not self._on:
            return False
        own, self._own = self._own, self._own + 1
        return own == 0 or own % self._interval == self._interval // 4

    def switch(self, *, on: bool) -> None:
        """Count no steps while off."""
        self._on = on


class OwnBudget(Budget):
    """The default, for which time stands still, too, while it is off.

    So it spaces its measurements as in a training that is on throughout.

    Args:
        clock: gives seconds; the one that the steps of the training are timed by.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        share = inspect.signature(dynoscope.watch).parameters["budget"].default
        super().__init__(share)
        self._clock, self._own = clock, 0
        self._off_since: float | None = None
        self._away = 0.0

    def __call__(self, step: int) -> bool:
        """Whether to measure a step: it is asked once at each."""
        if self._off_since is not None:
            return False
        self._own += 1
        return super().__call__(self._own - 1)

    def spent(
        self,
        step: int,
        now: float,
        seconds: float,
        agree: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Take note of a measurement, at the last of its own steps."""
        super().spent(self._own - 1, now - self._away, seconds, agree)

    def switch(self, *, on: bool) -> None:
        """Let the clock stand still while off."""
        now = self._clock()
        if self._off_since is not None:
            self._away += now - self._off_since
        self._off_since = None if on else now
