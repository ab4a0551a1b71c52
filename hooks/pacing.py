"""Which rounds are measured; and what measuring costs, for a budget to keep to."""

import operator
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from dynoscope.hooks.tracing import untraced, untraced_within
from dynoscope.measurement import Work
from dynoscope.schedule import JUMP, Budget, EveryNth, Schedule

__all__ = ["Pacing"]

FADES: Final = 0.9, 0.99
"""What the work of a measurement counts less with each later one. The first soon sees
that measurements have come to be far apart, where each takes a batch to itself; the
other does not forget what is rarely done, as merging files is. The larger counts."""

_rate_of = operator.itemgetter("lr")


class Pacing:
    """Asks a schedule; where that is a budget, watches learning rates and costs, too.

    A learning rate that lies on an accelerator is not looked at: that would wait.

    Args:
        schedule: which rounds to measure.
        optimizers: what is stepped.
        clock: gives seconds.
    """

    def __init__(
        self,
        schedule: Schedule,
        optimizers: Sequence[torch.optim.Optimizer],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._optimizers, self._clock = list(optimizers), clock
        self._budget = schedule if isinstance(schedule, Budget) else None
        self._interval = schedule.interval if isinstance(schedule, EveryNth) else None
        self._schedule = untraced_within(schedule) if self._budget is None else schedule
        self._rates: list[Any] = []
        self._are_plain = False  # numbers, not tensors that may be written into
        self._work, self._recent = Work(0.0, 0), [(0.0, 0.0) for _ in FADES]

    @property
    def interval(self) -> int:
        """Steps from one measurement to the next that the budget allows."""
        return self._budget.interval if self._budget is not None else 1

    @untraced
    def is_due(self, step: int) -> bool:
        """Whether to measure the round with this number, which is about to begin."""
        # This runs at every step: where nothing has changed it must end soon.
        if self._interval is not None:
            return step % self._interval == 0
        due = self._schedule(step)
        if self._budget is None:
            return due
        rates: list[Any] = []
        try:
            for optimizer in self._optimizers:
                rates += map(_rate_of, optimizer.param_groups)
        except KeyError:  # of an optimizer that has none
            return due
        if self._are_plain and rates == self._rates:
            return due
        return self._is_jump(rates) or due

    def spent(
        self,
        step: int,
        seconds: float,
        work: Work,
        agree: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Take note of a measured round.

        Args:
            step: its number.
            seconds: what it has cost the training's thread, or the device.
            work: of other threads, since the run began.
            agree: gives the interval that several processes have agreed on.
        """
        if self._budget is not None:
            background = self._per_measurement(work)
            self._budget.spent(step, self._clock(), seconds + background, agree)

    def _per_measurement(self, work: Work) -> float:
        """What other threads have done for each of the last measurements."""
        seconds, taken = (
            work.seconds - self._work.seconds,
            work.taken - self._work.taken,
        )
        self._work = work
        self._recent = [
            (its * fade**taken + seconds, count * fade**taken + taken)
            for fade, (its, count) in zip(FADES, self._recent, strict=True)
        ]
        return max(its / count if count else 0.0 for its, count in self._recent)

    @untraced_within
    def _is_jump(self, rates: list[Any]) -> bool:
        """Whether a learning rate is another than at the step before, by far."""
        self._are_plain = all(type(rate) is float for rate in rates)
        if not self._are_plain:
            rates = [_number(rate) for rate in rates]
        before, self._rates = self._rates, rates
        return len(rates) == len(before) and any(
            abs(new - old) > JUMP * max(abs(new), abs(old))
            for new, old in zip(rates, before, strict=True)
        )


def _number(rate: Any) -> float:
    if isinstance(rate, torch.Tensor):
        return float(rate) if rate.device.type == "cpu" and rate.numel() == 1 else 0.0
    return float(rate) if isinstance(rate, int | float) else 0.0
