"""How long measuring takes on an accelerator, without waiting for it."""

import collections
from collections.abc import Iterable

import torch

__all__ = ["DeviceClock", "clock_of"]


class DeviceClock:
    """Times sections of a CUDA stream; each is known some steps later.

    A section that the host is late to fill counts with its gaps, so that it is no
    shorter than the device needs.

    Args:
        devices: CUDA's, where there is something to time.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = [*devices]
        self._open: list[torch.cuda.Event] = []
        self._sections: collections.deque[tuple[torch.cuda.Event, torch.cuda.Event]]
        self._sections = collections.deque()

    def start(self) -> None:
        """Begin a section."""
        self._open = self._marks()

    def stop(self) -> None:
        """End it."""
        self._sections.extend(zip(self._open, self._marks(), strict=True))

    def read(self) -> float:
        """Seconds of the sections that have ended since this was last asked."""
        seconds = 0.0
        while self._sections and self._sections[0][1].query():
            begin, end = self._sections.popleft()
            seconds += begin.elapsed_time(end) / 1e3
        return seconds

    def _marks(self) -> list[torch.cuda.Event]:
        marks = []
        for device in self._devices:
            mark = torch.cuda.Event(enable_timing=True)
            mark.record(torch.cuda.current_stream(device))
            marks.append(mark)
        return marks


def clock_of(devices: Iterable[torch.device]) -> DeviceClock | None:
    """A clock for those devices that have one; None if none has."""
    timed = [device for device in dict.fromkeys(devices) if device.type == "cuda"]
    return DeviceClock(timed) if timed else None
