"""The run's folder on a disk that may fail: what cannot be written waits."""

import collections
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import pyarrow as pa

from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.manifest import Manifest
from dynoscope.schema.arrow import arrow_schema
from dynoscope.schema.folder import MANIFEST

__all__ = ["Disk"]

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Seconds between attempts on a disk that fails: twice as long after each."""

GRACE: Final = 1.0
"""Seconds that what is being deleted stays deleted, so that `rm -r` gets done."""


class Trouble(Protocol):
    """Is told what goes wrong, and by which error if it is one."""

    def __call__(self, problem: str, error: BaseException | None = None) -> None:
        """Take note."""


class _Waiting(NamedTuple):
    """A batch of a table's rows, as a journal has it.

    Attributes:
        table: name of the table.
        message: the serialized batch.
        rows: how many it has.
        steps: measured steps that count as recorded once it is written.
    """

    table: str
    message: pa.Buffer
    rows: int
    steps: tuple[int, ...]


class Disk:
    """Writes a run's tables and manifest, and waits where that is not possible.

    A full disk, one that is read-only for a while, a network file system that is
    away: rows wait in memory, in their order, and are written when that is possible
    again. A folder that was deleted is made anew; it has the rows from then on, and
    those that were deleted count as lost. A folder that has become another run's is
    left alone, for good. No method raises an error of the disk's.

    Args:
        run: the run's folder.
        manifest: its manifest, whose `progress` is counted here.
        trouble: is told what goes wrong.

    Attributes:
        nbytes: memory of the rows that wait.
        is_off: whether nothing can be written any more.
    """

    def __init__(self, run: Path, manifest: Manifest, trouble: Trouble) -> None:
        self._run, self._manifest, self._trouble = run, manifest, trouble
        self._writers: dict[str, TableWriter] = {}
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._failed, self._pause, self._retry_at = False, FIRST_PAUSE, 0.0
        self._missing_since: float | None = None
        self.nbytes, self.is_off = 0, False

    def add(
        self, tables: Mapping[str, list[pa.Array]], steps: Sequence[int] = ()
    ) -> None:
        """Take rows, which `write` writes.

        Args:
            tables: for each table, one array per column, in its schema's order.
            steps: the measured steps that these rows are of, if they are; they count
                by the table `layers`.
        """
        batches = [
            (name, pa.record_batch(columns, schema=arrow_schema(name)))
            for name, columns in tables.items()
        ]
        for name, batch in batches:
            if batch.num_rows:
                counted = tuple(steps) if name == "layers" else ()
                message = batch.serialize()
                self._waiting.append(_Waiting(name, message, batch.num_rows, counted))
                self.nbytes += message.size

    def write(self, *, at_once: bool = False) -> None:
        """Write the rows that wait, unless the disk has just failed.

        Args:
            at_once: try it even then.
        """
        if not self._waiting or (time.monotonic() < self._retry_at and not at_once):
            return
        try:
            if not self._keep_folder(at_once=at_once):
                return
            while self._waiting:
                if self.is_off:
                    self._drop()
                else:
                    self._write_first()
        except OSError as error:
            self._put_off(error)

    def beat(self) -> None:
        """Bring the manifest up to date, if that is possible."""
        try:
            if self._keep_folder() and not self.is_off:
                self._manifest.beat()
                self._manifest.write()
        except Exception as error:
            self._trouble(f"{MANIFEST} cannot be written for now", error)

    def finish(self) -> None:
        """Write what can be written; the rest is lost."""
        self.write(at_once=True)
        for writer in self._writers.values():
            self._flush(writer)
        self._lose()

    def close(self) -> None:
        """Let go of the files."""
        self._abandon(list(self._writers))

    def _write_first(self) -> None:
        table, message, rows, steps = self._waiting[0]
        try:
            writer = self._writers.get(table) or TableWriter(self._run, table)
            self._writers[table] = writer
            if writer.is_full():
                self._flush(writer)
            writer.write(message, rows)
        except OSError:
            raise
        except Exception as error:  # not the disk's: it would fail later, too
            self._trouble(f"rows of {table!r} are lost", error)
            self._drop()
            return
        if steps:
            self._progress["measured"] += len(steps)
            self._progress["step"] = steps[-1]
        self._forget()
        self._failed, self._pause = False, FIRST_PAUSE

    def _put_off(self, error: OSError) -> None:
        self._trouble(
            f"{self._run} cannot be written; rows wait in memory until it can", error
        )
        if self._failed:  # again: perhaps it is the open file, of a disk that was away
            writer = self._writers.pop(self._waiting[0].table, None)
            if writer is not None:
                writer.abandon()
        self._failed, self._retry_at = True, time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _flush(self, writer: TableWriter) -> None:
        try:
            writer.flush()
        except Exception as error:  # the rows are safe: a journal is read, too
            self._trouble("a journal cannot become a Parquet part", error)

    def _keep_folder(self, *, at_once: bool = False) -> bool:
        """Make anew what was deleted; leave alone what is someone else's.

        Args:
            at_once: wait for nobody to be done with deleting.

        Returns:
            Whether this is a moment to write.

        Raises:
            OSError: this cannot be found out, or not be done.
        """
        if self.is_off:
            return True
        deleted = [name for name, w in self._writers.items() if w.is_deleted()]
        is_there = self._manifest.is_there()
        if is_there and self._manifest.is_foreign():
            self.is_off = True
            self._trouble(f"{self._run} holds another run by now; recording is off")
            self._abandon(list(self._writers))
        elif deleted or not is_there:
            now = time.monotonic()
            self._missing_since = self._missing_since or now
            if now - self._missing_since < GRACE and not at_once:
                return False
            self._restore(deleted)
            gone = [*deleted, *([] if is_there else [MANIFEST])]
            self._trouble(f"{self._run}: {', '.join(gone)} deleted; begun anew")
        self._missing_since = None
        return True

    def _restore(self, deleted: Sequence[str]) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        if "layers" in deleted:
            self._progress["lost"] += self._progress["measured"]
            self._progress["measured"] = 0
        if deleted:
            self._manifest.content["revision"] += 1
        self._manifest.write()
        self._abandon(deleted)

    def _abandon(self, tables: Sequence[str]) -> None:
        for name in tables:
            self._writers.pop(name).abandon()

    def _lose(self) -> None:
        """Give up the rows that wait."""
        if self._waiting:
            before = dict(self._progress)
            while self._waiting:
                self._drop()
            steps, rows = (
                self._progress[key] - before[key] for key in ("lost", "lost_rows")
            )
            self._trouble(f"{steps} measured steps and {rows} other rows are lost")

    def _drop(self) -> None:
        """Lose the first batch that waits."""
        _, _, rows, steps = self._waiting[0]
        self._progress["lost"] += len(steps)
        self._progress["lost_rows"] += 0 if steps else rows
        self._forget()

    def _forget(self) -> None:
        self.nbytes -= self._waiting.popleft().message.size

    @property
    def _progress(self) -> dict[str, Any]:
        progress: dict[str, Any] = self._manifest.content["progress"]
        return progress
