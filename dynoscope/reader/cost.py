"""What dynoscope has cost a training, by what the run recorded of it."""

from typing import Final

import numpy as np

__all__ = ["COST", "OWN", "Cost"]

OWN: Final = "dynoscope/"
"""How the names of scalars begin that dynoscope logs itself."""

COST: Final = f"{OWN}hook_seconds"
"""The scalar that holds what the hooks cost the training thread."""


class Cost:
    """What the hooks cost the training thread, over the run so far."""

    def __init__(self) -> None:
        self._seconds, self._steps = 0.0, 0
        self._began, self._ended = np.inf, -np.inf

    def add(self, wall_time: np.ndarray, seconds: np.ndarray) -> None:
        """Add measured steps, one at least: when each ended, and what it cost."""
        self._seconds += float(seconds.sum())
        self._steps += len(seconds)
        self._began = min(self._began, float(wall_time.min()))
        self._ended = max(self._ended, float(wall_time.max()))

    @property
    def per_step(self) -> float | None:
        """Mean seconds per measured step; None before the first one."""
        return self._seconds / self._steps if self._steps else None

    @property
    def share(self) -> float | None:
        """Share of the time from the first measured step to the last one."""
        elapsed = self._ended - self._began
        return self._seconds / elapsed if elapsed > 0 else None
