"""The upload thread: keeps a store up to date with a run, however flaky it is."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dynoscope.errors import StoreError
from dynoscope.remote.store import Store
from dynoscope.remote.upload import Upload

__all__ = ["Uploader", "pause_after"]

SHARE: Final = 0.1
"""Share of the time that may be spent uploading: what takes long is done less often."""

LONGEST_PAUSE: Final = 60.0
"""Most seconds between a failure and the next try."""


_RANDOM: Final = random.Random()
"""Our own: the global one is the training's."""


class Uploader:
    """Uploads a run while it is written, and what is left when it is over.

    A failure is tried again for as long as the run lasts, see `pause_after`.

    Args:
        folder: the run's folder.
        store: where it goes.
        interval: seconds between uploads.
        note: is called, on the thread, with what the user is to know.

    Attributes:
        counts: what the manifest says of the upload; updated in place.
        reason: why the last try failed, "" if it did not.
    """

    def __init__(
        self, folder: Path, store: Store, interval: float, note: Callable[[str], None]
    ) -> None:
        self._upload, self._interval, self._note = Upload(folder, store), interval, note
        self._folder, self._store = folder, store
        self.counts: dict[str, Any] = {"uri": store.uri, "failures": 0, "backlog": 0}
        self.reason = ""
        self._in_a_row = 0
        self._said: set[str] = set()
        self._patience = 0.0
        self._over, self._given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"dynoscope-upload-{folder.name}", daemon=True
        )

    def start(self, *, replace: bool = True) -> None:
        """Upload what there is, then go on in the background.

        Args:
            replace: whether what is there and not in the folder is removed.

        Raises:
            StoreError: it cannot be uploaded; the message says why.
        """
        self._upload.look(replace=replace)
        self._upload.once()
        self._thread.start()

    def finish(self, patience: float) -> bool:
        """Upload what is left, now that the run is over; whether all has arrived.

        Args:
            patience: seconds to try for.
        """
        self._patience = patience
        self._over.set()
        if threading.current_thread() is self._thread:
            return False  # the garbage collector ends a watch where it happens to be
        try:
            # A try that hangs is left to itself.
            self._thread.join(patience)
        finally:
            self._given_up.set()
        return not self._thread.is_alive() and not self.reason

    def _work(self) -> None:
        pause = self._interval
        while not self._over.wait(pause):
            pause = self._try()
        deadline = time.monotonic() + self._patience
        while True:
            pause = self._try()
            left = deadline - time.monotonic()
            if not self.reason or left <= 0:
                return
            if self._given_up.wait(min(pause, self._interval, left)):
                return

    def _try(self) -> float:
        """Upload what is new; give the seconds until the next time."""
        began = time.monotonic()
        try:
            self._upload.once()
        except Exception as error:  # whatever it is: the next try may do better
            return self._failed(error)
        self.reason, self._in_a_row, self.counts["backlog"] = "", 0, 0
        return max(self._interval, (time.monotonic() - began) / SHARE)

    def _failed(self, error: Exception) -> float:
        self.reason = str(error)
        self.counts["failures"] += 1
        self.counts["backlog"] = self._upload.backlog()
        cause = error.cause if isinstance(error, StoreError) else type(error).__name__
        if cause not in self._said and not self._given_up.is_set():
            self._said.add(cause)
            self._note(
                "uploading failed and is tried again, training goes on; all is kept "
                f"in {self._folder} meanwhile ({error})"
            )
        self._in_a_row += 1
        return pause_after(self._in_a_row, self._interval)


def pause_after(failures: int, interval: float) -> float:
    """Seconds to wait after so many failures in a row, drawn at random.

    They double from `interval` on, so that many trainings neither hammer a store that
    is down nor come back all at once.
    """
    longest = min(interval * 2.0 ** min(failures, 30), LONGEST_PAUSE)
    return longest * _RANDOM.uniform(0.5, 1.0)
