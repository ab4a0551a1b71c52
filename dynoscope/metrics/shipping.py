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

__all__ = ["Shipped", "stacked", "unpack"]


class Shipped:
    """A step's numbers: called, it waits for them and gives them.

    Args:
        packing: where they lie in the packed tensors.
        waits: per device, waits for its packed tensor, and gives it.

    Attributes:
        among: once they are in order, steps with a first axis, and which is this one.
    """

    def __init__(
        self, packing: Packing, waits: Sequence[Callable[[], npt.NDArray[Any]]]
    ) -> None:
        self.packing = packing
        self._waits = waits
        self._flats: Sequence[npt.NDArray[Any]] = ()
        self.among: tuple[Host, int] | None = None

    def __call__(self) -> Host:
        """Wait for the numbers, and put them in order unless that is done."""
        if self.among is None:
            unpack([self])
            return self()
        together, at = self.among
        return Host(together.sums[at], together.rows[at], together.channels[at])

    def wait(self) -> Sequence[npt.NDArray[Any]]:
        """Wait for the packed tensors, and give them, per device."""
        if not self._flats:
            self._flats = [wait() for wait in self._waits]
        return self._flats

    def settle(self, together: Host, at: int) -> None:
        """Take the numbers from who has unpacked them, with those of other steps."""
        self.among, self._waits, self._flats = (together, at), (), ()


def unpack(steps: Sequence[Shipped]) -> None:
    """Unpack consecutive steps, those of one packing together; waits for them."""
    packed = [step for step in steps if step.among is None]
    for packing, alike in itertools.groupby(packed, key=lambda s: s.packing):
        together = list(alike)
        flats = zip(*(step.wait() for step in together), strict=True)
        found = packing.unpack([np.stack(flat) for flat in flats])
        for at, step in enumerate(together):
            step.settle(found, at)


def stacked(steps: Sequence[Callable[[], Host]]) -> Host:
    """Numbers of some steps, with a first axis of steps; waits for them.

    Of consecutive steps that were unpacked together they are not copied.
    """
    among = [step.among for step in steps if isinstance(step, Shipped)]
    if len(among) == len(steps) and among[0] is not None:
        together, first = among[0]
        here = slice(first, first + len(steps))
        if all(
            place is not None and place[0] is together and place[1] == at
            for at, place in enumerate(among, first)
        ):
            return Host(
                together.sums[here], together.rows[here], together.channels[here]
            )
    hosts = [step() for step in steps]
    return Host(
        np.stack([host.sums for host in hosts]),
        np.stack([host.rows for host in hosts]),
        np.stack([host.channels for host in hosts]),
    )
