"""In place of a recorder, where another process writes the run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dynoscope.measurement import Measurement, Rows, ScalarEntry, Work
from dynoscope.recorder.tables import row_batch

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Bystander"]

logger = logging.getLogger("dynoscope")


class Bystander:
    """Takes what a `Recorder` takes, and keeps nothing of it.

    Args:
        rank: the process that it stands on.
        strict: raise errors of dynoscope's own instead of going on without it.
    """

    def __init__(self, rank: int, *, strict: bool) -> None:
        self._rank, self._strict = rank, strict

    @property
    def work(self) -> Work:
        """None."""
        return Work(0.0, 0)

    def has_room(self) -> bool:
        """Always: nothing is kept."""
        return True

    def put(self, measurement: Measurement) -> None:
        """Nothing: the writing process has it."""

    def log(self, entry: ScalarEntry) -> None:
        """Nothing: the writing process logs its own."""

    def record(self, rows: Rows) -> pd.DataFrame:
        """Rows as the writing process will read its own."""
        frame: pd.DataFrame = row_batch(rows).to_pandas()
        return frame

    def note(self, problem: str) -> None:
        """Nothing: the writing process notes it."""

    def fail(self, problem: str, error: Exception) -> None:
        """Say what failed on this process; nobody else knows.

        Raises:
            Exception: the error itself, if strict.
        """
        logger.warning(
            "dynoscope: %s on process %d; training goes on (%s: %s)",
            problem,
            self._rank,
            type(error).__name__,
            error,
        )
        if self._strict:
            raise error
