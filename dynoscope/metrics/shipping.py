"""A step's packed tensors on their way to the host, where many are unpacked at once.

To unpack is a few dozen calls, whatever their arrays hold: for the writer's thread
those calls are what a small model's step costs, and it makes them for many steps.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import Host
from dynoscope.metrics.packing import Packing

__all__ = ["Shipped", "unpack"]


class Shipped:
    """A step's numbers: called, it waits for them and gives them.

    Args:
        packing: where they lie in the packed tensors.
        waits: per device, waits for its packed tensor, and gives it.
    """

    def __init__(
        self, packing: Packing, waits: Sequence[Callable[[], npt.NDArray[Any]]]
    ) -> None:
        self.packing = packing
        self._waits = waits
        self._flats: Sequence[npt.NDArray[Any]] = ()
        self._host: Host | None = None

    def __call__(self) -> Host:
        """Wait for the numbers, and put them in order unless that is done."""
        if self._host is None:
            self._host = self.packing.unpack(self.wait())
        return self._host

    def wait(self) -> Sequence[npt.NDArray[Any]]:
        """Wait for the packed tensors, and give them, per device."""
        if not self._flats:
            self._flats = [wait() for wait in self._waits]
        return self._flats

    @property
    def is_settled(self) -> bool:
        """Whether the numbers are in order."""
        return self._host is not None

    def settle(self, host: Host) -> None:
        """Take the numbers from who has unpacked them."""
        self._host, self._waits, self._flats = host, (), ()


def unpack(steps: Sequence[Shipped]) -> None:
    """Unpack consecutive steps, those of one packing together; waits for them."""
    packed = [step for step in steps if not step.is_settled]
    for packing, alike in itertools.groupby(packed, key=lambda s: s.packing):
        together = list(alike)
        flats = zip(*(step.wait() for step in together), strict=True)
        found = packing.unpack([np.stack(flat) for flat in flats])
        for k, step in enumerate(together):
            step.settle(Host(found.sums[k], found.rows[k], found.channels[k]))
