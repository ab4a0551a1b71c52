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

INTERVAL: Final = 5.0
"""Seconds between looks at the folder."""

LONGEST_PAUSE: Final = 600.0
"""The same at most, after errors."""

SECONDS: Final = 3.0
"""How long the end of a run may take to seal what is left."""

RATE: Final = 32e6
"""Bytes a second that are sealed at least, before compression, as a first guess."""

NICE: Final = 10
"""How much the thread stands back (Linux)."""


class Sealer:
    """Merges the files of a run as they become many.

    It needs no word from the writer, and the writer never waits for it: it works on
    files that are finished, and only on what lies in the folder.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._sizes = {table: Sizes(run / table) for table in TABLES}
        self._say: Callable[[str], None] = print
        self._stop, self._cancel = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"dynoscope-sealer-{run.name}", daemon=True
        )

    def start(self, say: Callable[[str], None]) -> None:
        """Begin.

        Args:
            say: is told what goes wrong, from the sealer's thread.
        """
        self._say = say
        self._thread.start()

    def finish(self, seconds: float = SECONDS) -> None:
        """Seal what is left as far as there is time; `compact` does the rest."""
        deadline = time.monotonic() + seconds
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
            self._cancel.set()
            self._thread.join()
        self._cancel.clear()
        for table in sorted(TABLES, key=self._bytes_left):
            while files := self._affordable(table, deadline - time.monotonic()):
                if not self._merge(table, files):
                    break

    def once(self) -> bool:
        """Merge what is due; whether all went well."""
        for table in TABLES:
            while not self._stop.is_set() and (files := due(self._settled(table))):
                if not self._merge(table, files):
                    return False
        return True

    def _work(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        pause = INTERVAL
        while not self._stop.wait(pause):
            pause = INTERVAL if self.once() else min(2 * pause, LONGEST_PAUSE)

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

    def _merge(self, table: str, files: Sequence[TableFile]) -> bool:
        try:
            write_segment(self._run / table, files, self._check)
        except (FileNotFoundError, CancelledError):
            return False  # the folder has changed, or the run is over
        except DamagedError as error:
            self._sizes[table].leave(error.file)
            self._say(f"{error}; it is left as it is")
        except Exception as error:
            self._say(
                f"files of {table!r} cannot be merged for now; they are read as they "
                f"are ({type(error).__name__}: {error})"
            )
            return False
        return True

    def _check(self) -> None:
        if self._cancel.is_set():
            raise CancelledError
