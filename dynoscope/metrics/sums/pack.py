"""A device's packed tensor, and its copies on the host."""

import collections
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.metrics.sums.spec import Spec

__all__ = ["Pack", "start_copy"]


class Pack:
    """One device's packed tensor, and its copies on the host."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(sum(sizes), dtype=dtype, device=device)
        parts = self.flat.split(sizes)
        self.parts = [p.view(s) for p, s in zip(parts, shapes, strict=True)]
        # What numpy does with few numbers takes a fraction of torch's time.
        self._here = self.flat.numpy() if self.flat.is_cpu else None
        self._sums = self.parts[0].numpy() if self.flat.is_cpu else None
        self._claimed = [0, 0, 0]
        self._pinned: collections.deque[Tensor] = collections.deque()

    def claim(self, specs: Iterable[Spec]) -> list[Tensor]:
        """The next free columns of sums, row sums and channel quantities."""
        columns = [spec.columns(0).widths for spec in specs]
        views = []
        for k, width in enumerate(map(sum, zip(*columns, strict=True))):
            views.append(self.parts[k].narrow(1, self._claimed[k], width))
            self._claimed[k] += width
        return views

    def split(self, numbers: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """The parts of a copy on the host, as views."""
        ends = np.cumsum([part.numel() for part in self.parts])[:-1]
        parts = np.split(numbers, ends)
        return [p.reshape(q.shape) for p, q in zip(parts, self.parts, strict=True)]

    def is_known_finite(self) -> bool:
        """Whether all is finite; False where asking would wait for a device."""
        return self.flat.device.type == "cpu" and bool(self.flat.isfinite().all())

    def clear(self) -> None:
        """Forget the sums; rows and channels are all written at every step."""
        if self._sums is not None:
            self._sums.fill(0)
        else:
            self.parts[0].zero_()

    def ship(self) -> Callable[[], npt.NDArray[Any]]:
        """Start a copy to the host; give a function that waits for it."""
        if self._here is None:
            return start_copy(self.flat, self._pinned)
        copy = self._here.copy()
        return lambda: copy


def start_copy(
    x: Tensor, pinned: collections.deque[Tensor]
) -> Callable[[], npt.NDArray[Any]]:
    """Start a copy to the host; give a function that waits for it.

    Args:
        x: a tensor that the device may still be writing.
        pinned: host tensors like it, to copy to; taken from and given back.
    """
    if not x.is_cuda:
        copy = x.numpy().copy() if x.is_cpu else x.cpu().numpy()
        return lambda: copy
    host = pinned.pop() if pinned else _pinned_like(x)
    host.copy_(x, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(x.device))

    def wait() -> npt.NDArray[Any]:
        event.synchronize()
        numbers = host.numpy().copy()
        pinned.append(host)
        return numbers

    return wait


def _pinned_like(x: Tensor) -> Tensor:
    # A default device of the user's is not to be asked for pinned memory.
    return torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=True)
