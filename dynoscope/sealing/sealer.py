"""Seals a run while it is written, on a thread that stands back for the training."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from dynoscope.schema import TABLES
from dynoscope.schema.folder import TableFile
from dynoscope.sealing.plan import Sized, all_due, due
from dynoscope.sealing.segment import CancelledError, DamagedError, write_segment
from dynoscope.sealing.sizes import Sizes

__all__ = ["Sealer"]

PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 600.0
"""Seconds after which it is tried again, after errors: twice as long after each."""

SECONDS: Final = 3.0
"""How long the end of a run may take to seal what is left."""

RATE: Final = 32e6
"""Bytes a second, before compression, that are sealed at least, as a rule."""

NICE: Final = 10
"""How much the thread stands back (Linux)."""

Say = Callable[[str], None]


class Sealer:
    """Merges the files of a run as they become many.

    It works on files that are finished, and learns all from what lies in the folder:
    whoever writes there never waits for it.

    Args:
        run: the run's folder.

    Attributes:
        seconds: processor time that its own threads have spent.
    """

    def __init__(self, run: Path) -> None:
        self._run, self.seconds = run, 0.0
        self._sizes = {table: Sizes(run / table) for table in TABLES}
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._pause, self._retry_at = PAUSE, 0.0

    def look(self, say: Say) -> None:
        """Merge what is due, if anything is, on a thread of its own.

        Args:
            say: is told what goes wrong, from that thread.
        """
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or time.monotonic() < self._retry_at:
            return
        if any(due(self._settled(table)) for table in TABLES):
            name = f"dynoscope-sealer-{self._run.name}"
            self._thread = threading.Thread(
                target=self._work, args=(say,), name=name, daemon=True
            )
            self._thread.start()

    def finish(self, say: Say, seconds: float = SECONDS) -> None:
        """Seal what is left as far as there is time; `compact` does the rest."""
        deadline = time.monotonic() + seconds
        if self._thread is not None:
            self._thread.join(seconds)
            self._cancelled.set()
            self._thread.join()
            self._cancelled.clear()
        for table in sorted(TABLES, key=self._bytes_left):
            while files := self._affordable(table, deadline - time.monotonic()):
                if not self._merge(table, files, say):
                    break

    def merge(self, say: Say) -> bool:
        """Merge what is due; whether all went well."""
        for table in TABLES:
            while files := due(self._settled(table)):
                if not self._merge(table, files, say):
                    return False
        return True

    def _work(self, say: Say) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        if self.merge(say):
            self._pause = PAUSE
        else:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self.seconds += time.thread_time()

    def _settled(self, table: str) -> Sequence[Sized]:
        with contextlib.suppress(FileNotFoundError):  # just replaced: the next look
            return self._sizes[table].settled()
        return []

    def _affordable(self, table: str, seconds: float) -> Sequence[TableFile]:
        """What can be merged in so many seconds, of all there is."""
        settled = self._settled(table)
        sizes = {each.file: each.size or 0 for each in settled}
        for files in all_due(settled):
            if sum(sizes[file] for file in files) / RATE < seconds:
                return files
        return []

    def _bytes_left(self, table: str) -> int:
        return sum(each.size or 0 for each in self._settled(table))

    def _merge(self, table: str, files: Sequence[TableFile], say: Say) -> bool:
        try:
            write_segment(self._run / table, files, self._check)
        except (FileNotFoundError, CancelledError):
            return False  # the folder has changed, or the run is over
        except DamagedError as error:
            self._sizes[table].leave(error.file)
            say(f"{error}; it is left as it is")
        except Exception as error:
            say(
                f"files of {table!r} cannot be merged for now; they are read as they "
                f"are ({type(error).__name__}: {error})"
            )
            return False
        return True

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError
