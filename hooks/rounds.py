"""Rounds: the steps of several optimizers that are counted as one."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from dynoscope.hooks.follower import Follower
from dynoscope.measurement import GroupState, Host, Measurement, Subject
from dynoscope.metrics.histograms import BINS
from dynoscope.metrics.sums import Counted, start_counts

__all__ = ["Round", "measurement_of"]


@dataclasses.dataclass(slots=True)
class Round:
    """Steps that are counted as one.

    Attributes:
        measured: per optimizer that was measured, the number of its own step; None
            where this round is not measured.
        due: whether it is to be measured, and has not been begun.
        stepped: optimizers that have stepped, one bit each.
        counting: whether histograms are taken.
        turn: whose turn it is, where layers take turns.
        seconds: what the hooks have cost.
    """

    measured: dict[int, int] | None = None
    due: bool = False
    stepped: int = 0
    counting: bool = False
    turn: int = 0
    seconds: float = 0.0
    _start: float = 0.0

    def since(self, start: float) -> Self:
        """Count the time from `start`, by `time.perf_counter`, to the end of a block.

        Such blocks are not within each other.
        """
        self._start = start
        return self

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.seconds += time.perf_counter() - self._start


def measurement_of(
    ended: Round,
    subject: Subject,
    followers: Sequence[Follower],
    fetch: Callable[[], Host],
    nbytes: int,
    counted: Sequence[Counted],
    *,
    step: int,
    skipped: int,
    seconds: float,
    device_seconds: float,
) -> Measurement:
    """A round's measurement, numbers on their way.

    Args:
        ended: the round.
        subject: what is watched.
        followers: what was taken from each optimizer.
        fetch: gives the sums, which hold `nbytes` until then.
        nbytes: see there.
        counted: histograms, where they were taken.
        step: number of the round.
        skipped: measurements given up since the last one.
        seconds: what the hooks have cost.
        device_seconds: what was measured of the device's time meanwhile.
    """
    measured, layers = ended.measured or {}, len(subject.layers)
    has_grad, limits = np.zeros(layers, bool), np.full(layers, np.inf)
    readers: list[Callable[[], GroupState]] = []
    for part, follower in enumerate(followers):
        if part in measured:
            has_grad[follower.at] = [grad is not None for grad in follower.grads]
            limits[follower.at] = follower.limits
            readers += follower.groups
        else:
            readers += [_unknown] * len(follower.moved.optimizer.param_groups)
    return Measurement(
        subject=subject,
        step=step,
        own_steps=tuple(map(measured.get, range(len(followers)))),
        wall_time=time.time(),
        groups=lambda: tuple(read() for read in readers),
        has_grad=has_grad,
        limits=limits,
        fetch=fetch,
        nbytes=nbytes + 2 * 8 * BINS * layers * bool(counted),
        hook_seconds=seconds,
        device_seconds=device_seconds,
        skipped=skipped,
        turn=ended.turn,
        scalers=tuple(
            follower.scaler if part in measured else None
            for part, follower in enumerate(followers)
        ),
        histograms=start_counts(counted, layers) if counted else None,
    )


def _unknown() -> GroupState:
    """Hyperparameters of an optimizer that did not step."""
    return GroupState(lr=np.nan, weight_decay=np.nan)
