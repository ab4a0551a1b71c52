"""CPU time of the training's own threads, and of what works beside them.

Linux only: it reads /proc, and the clocks of threads by their ids.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Clocks", "Cost"]


class Cost(NamedTuple):
    """Seconds.

    Attributes:
        wall: by the clock.
        cpu: of the training's own threads.
        beside: CPU time of all other threads, those that have ended included.
    """

    wall: float
    cpu: float
    beside: float = 0.0

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(a - b for a, b in zip(self, other, strict=True)))

    def __truediv__(self, steps: float) -> "Cost":
        return Cost(*(each / steps for each in self))


class Clocks:
    """Tells the threads that train from those that came later, or stand by.

    Args:
        train: trains a little, watched by nothing; its threads have been started.
    """

    def __init__(self, train: Callable[[], None]) -> None:
        before = {tid: _seconds(tid) for tid in _threads()}
        train()
        self._own = [tid for tid, start in before.items() if _seconds(tid) > start]

    def now(self) -> Cost:
        """Time used so far."""
        own = sum(map(_seconds, self._own))
        return Cost(time.perf_counter(), own, time.process_time() - own)


def _threads() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/task").iterdir()]


def _seconds(tid: int) -> float:
    """CPU time of a thread of this process.

    By its clock, which is up to date also for one that is at work: what /proc has of
    it may be a tick old.
    """
    per_thread, scheduled = 4, 2  # bits of a clock's id, as the kernel makes it
    return time.clock_gettime(~tid << 3 | per_thread | scheduled)
