"""Who merges the files of a run while it is written, as the recorder sees it."""

from collections.abc import Callable
from typing import Protocol

__all__ = ["Sealing"]


class Sealing(Protocol):
    """Merges a run's files as they become many; see `dynoscope.sealing`."""

    def start(self, say: Callable[[str], None]) -> None:
        """Begin; `say` is told what goes wrong."""

    def finish(self) -> None:
        """The run is written: seal the rest, within a few seconds."""
