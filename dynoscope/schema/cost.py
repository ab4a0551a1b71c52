"""What watching has cost a run, as its manifest has it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Cost", "cost_of"]


class Cost(NamedTuple):
    """Seconds that watching took, and those that it watched.

    Attributes:
        hooks: time of the training's thread in the hooks of measured steps.
        device: time of an accelerator in what they have it do; 0 on the CPU.
        background: processor time of the threads that write and seal.
        elapsed: how long it was watched.
    """

    hooks: float
    device: float
    background: float
    elapsed: float

    @property
    def seconds(self) -> float:
        """All of it: host and device work at the same time, so the longer counts."""
        return max(self.hooks, self.device) + self.background

    @property
    def share(self) -> float | None:
        """Part of the time that it took; None of a run that does not say."""
        return self.seconds / self.elapsed if self.elapsed > 0 else None


def cost_of(manifest: Mapping[str, Any]) -> Cost:
    """What a manifest says of it; all is 0 in a run of before this was counted."""
    seconds = manifest["progress"].get("seconds", {})
    return Cost(*(float(seconds.get(name, 0.0)) for name in Cost._fields))
