"""Who merges the files of a run while it is written, as the recorder sees it."""

from collections.abc import Callable
from typing import Protocol

__all__ = ["Sealing"]


class Sealing(Protocol):
    """Merges a run's files as they become many; see `dynoscope.sealing`."""

    @property
    def seconds(self) -> float:
        """Processor time that its own threads have spent."""

    def look(self, say: Callable[[str], None]) -> None:
        """Begin to merge what is due, if anything is; `say` is told what goes wrong."""

    def finish(self, say: Callable[[str], None]) -> None:
        """The run is written: seal the rest, within a few seconds."""
