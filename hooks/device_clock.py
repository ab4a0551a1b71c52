"""How long measuring takes on an accelerator, without waiting for it."""

import collections
from collections.abc import Iterable

import torch

__all__ = ["DeviceClock"]


class DeviceClock:
    """Times sections of a CUDA stream; each is known some steps later.

    A section that the host is late to fill counts with its gaps, so that it is no
    shorter than the device needs.

    Args:
        devices: where there is something to time; others than CUDA's are left out.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._devices = [d for d in dict.fromkeys(devices) if d.type == "cuda"]
        self._open: list[torch.cuda.Event] = []
        self._sections: collections.deque[tuple[torch.cuda.Event, torch.cuda.Event]]
        self._sections = collections.deque()

    def __bool__(self) -> bool:
        """Whether there is anything to time."""
        return bool(self._devices)

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
