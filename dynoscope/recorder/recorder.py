"""The writer thread: from the training's queue to the run folder."""

import collections
import functools
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from dynoscope.errors import MeasurementError
from dynoscope.measurement import Measurement, Rows, ScalarEntry, Subject
from dynoscope.recorder.builder import TableBuilder
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.judging import Found, Judge
from dynoscope.recorder.manifest import Manifest
from dynoscope.recorder.past import Past
from dynoscope.recorder.tables import finding_columns, row_batch, scalar_columns
from dynoscope.schema.arrow import arrow_schema

__all__ = ["Recorder"]

_T = TypeVar("_T")

logger = logging.getLogger("dynoscope")

INTERVAL: Final = 0.2
"""Seconds between looks at the queue: the most that a SIGKILL loses, and a bit."""

HEARTBEAT: Final = 2.0
"""Seconds between updates of the manifest."""

QUEUE_BYTES: Final = 256 << 20
"""Host memory that waiting measurements may hold before new ones are skipped."""

BATCH: Final = 256
"""Most measurements turned into rows at once."""


class Recorder:
    """Writes one run. `put` and `log` are for the training thread, never block.

    Args:
        run: the run's folder, which exists.
        subject: what is watched.
        settings: further content of the manifest.
        strict: raise errors of dynoscope's own instead of going on without it.
        judge: is given all rows, on the writer thread, if there is one.
        past: what the run held, if it is resumed.
    """

    def __init__(
        self,
        run: Path,
        subject: Subject,
        settings: dict[str, Any],
        *,
        strict: bool,
        judge: Judge | None = None,
        past: Past | None = None,
    ) -> None:
        self._run, self._strict, self._judge = run, strict, judge
        self._subject, self._past = subject, past
        self._manifest = Manifest.create(run, subject, settings)
        if past is not None:
            self._manifest.go_on(past)
        self._builder = TableBuilder(subject)
        self._writers: dict[str, TableWriter] = {}
        self._measurements: collections.deque[Measurement] = collections.deque()
        self._scalars: collections.deque[ScalarEntry] = collections.deque()
        self._rows: collections.deque[tuple[str, pa.RecordBatch]] = collections.deque()
        # Each counter has one writing thread, so no lock is needed.
        self._bytes_put, self._bytes_taken = 0, 0
        self._wake, self._stopping = threading.Event(), False
        self._error: Exception | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"dynoscope-{run.name}", daemon=True
        )
        self._next_beat = 0.0

    def start(self) -> None:
        """Write the manifest and start the writer thread."""
        for problem in self._past.notes if self._past else ():
            self.note(problem)
        self._manifest.write()
        self._thread.start()

    @property
    def progress(self) -> dict[str, Any]:
        """Counts of measured, skipped and lost steps, as the manifest has them."""
        progress: dict[str, Any] = self._manifest.content["progress"]
        return progress

    def mark(self, step: int, taken: int | None) -> None:
        """Note how many steps the optimizer itself has counted at a step of the run."""
        self.progress["counted"].append([step, taken])

    def has_room(self) -> bool:
        """Whether the queue takes another measurement."""
        if self._error is not None:
            if self._strict:
                raise self._error
            return False
        return self._bytes_put - self._bytes_taken < QUEUE_BYTES

    def put(self, measurement: Measurement) -> None:
        """Queue a measurement."""
        self._bytes_put += measurement.nbytes
        self._measurements.append(measurement)
        if self._bytes_put - self._bytes_taken > QUEUE_BYTES // 4:
            self._wake.set()

    def log(self, entry: ScalarEntry) -> None:
        """Queue a number that the user logs."""
        self._scalars.append(entry)

    def record(self, rows: Rows) -> pd.DataFrame:
        """Queue rows measured on demand; gives them as they will be read.

        Raises:
            MeasurementError: the run is closed.
        """
        if self._stopping:
            raise MeasurementError(
                f"{self._run} is closed; measure inside the dynoscope.watch block"
            )
        batch = row_batch(rows)
        self._rows.append((rows.table, batch))
        frame: pd.DataFrame = batch.to_pandas()
        return frame

    def note(self, problem: str) -> None:
        """Record a problem in the run and say it, once."""
        if problem not in self._manifest.content["problems"]:
            self._manifest.content["problems"].append(problem)
            logger.warning("dynoscope: %s", problem)

    def fail(self, part: str, error: Exception) -> None:
        """Record that a part of dynoscope failed and is off from now on.

        Raises:
            Exception: the error itself, if strict.
        """
        self.note(
            f"{part} failed and is off from now on; training goes on "
            f"({type(error).__name__}: {error})"
        )
        if self._strict:
            raise error

    def close(self, failure: BaseException | None, skipped: int) -> None:
        """Write what is queued, end the thread, and say how the run ended.

        Args:
            failure: what ended the watched block, if an exception did.
            skipped: measurements given up since the last one that was put.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join()
        content = self._manifest.content
        content["ended"] = time.time()
        self.progress["skipped"] += skipped
        content["status"] = "finished" if failure is None else "failed"
        if failure is not None:
            content["exception"] = f"{type(failure).__name__}: {failure}"
        self._save()
        if self._error is not None and self._strict and failure is None:
            raise self._error

    def _work(self) -> None:
        # NaN and infinity are measured, not mistakes: no warning, whatever the filter
        with np.errstate(all="ignore"):
            if self._past is not None:
                self._guard(functools.partial(self._follow, self._past))
            while not self._stopping:
                self._wake.wait(INTERVAL)
                self._wake.clear()
                self._guard(self._drain)
            self._guard(self._drain)
            self._guard(self._finish)
            self._guard(lambda: self._ask(lambda judge: judge.finish()))
            self._guard(self._flush)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a piece of work; an error in it ends the recording, not the run."""
        if self._error is not None:
            self._discard()
            return
        try:
            work()
        except Exception as error:
            self._error = error
            self.note(
                "recording failed and is off from now on; training goes on "
                f"({type(error).__name__}: {error})"
            )
            self._discard()
            for writer in self._writers.values():
                writer.abandon()
            self._save()

    def _save(self) -> None:
        """Write the manifest if that is possible; nothing hangs on it any more."""
        try:
            self._beat()
        except OSError as error:
            logger.warning("dynoscope: %s cannot be updated: %s", self._run, error)

    def _discard(self) -> None:
        for measurement in _drained(self._measurements):
            self._bytes_taken += measurement.nbytes
            self.progress["lost"] += 1
        self._scalars.clear()
        self._rows.clear()

    def _follow(self, past: Past) -> None:
        """Bring predictions and judge to where the run was left."""
        try:
            for rows in past.rows:
                self._builder.follow(rows)
                self._ask(functools.partial(_feed, rows))
                self._beat_if_due()
        except Exception as error:
            self._builder = TableBuilder(self._subject)
            self.note(
                f"predictions start anew at step {past.step}: the steps before cannot "
                f"be followed ({type(error).__name__}: {error})"
            )
            if self._strict:
                raise

    def _drain(self) -> None:
        measurements = filter(self._is_whole, _drained(self._measurements))
        while batch := list(itertools.islice(measurements, BATCH)):
            for _, alike in itertools.groupby(batch, key=lambda m: id(m.subject)):
                self._record(list(alike))
        rows = [
            (entry.step, entry.wall_time, entry.name, entry.fetch())
            for entry in _drained(self._scalars)
        ]
        if rows:
            self._table("scalars").append(scalar_columns(rows))
        for table, batch in _drained(self._rows):
            self._table(table).append(batch.columns)
        self._beat_if_due()

    def _is_whole(self, measurement: Measurement) -> bool:
        """Whether no process has failed to add its shards to the numbers."""
        failed = measurement.fetch().failed
        if failed:
            self.note(
                f"measuring failed on process {', '.join(map(str, failed))}, where it "
                "is said why; without its shards nothing is recorded"
            )
            self.progress["lost"] += 1
            self._bytes_taken += measurement.nbytes
        return not failed

    def _record(self, batch: list[Measurement]) -> None:
        if batch[0].subject is not self._subject:
            self._change(batch[0])
        built = self._builder.build(batch)
        for name, columns in built.items():
            self._table(name).append(columns)
        costs = [
            (m.step, m.wall_time, "dynoscope/hook_seconds", m.hook_seconds)
            for m in batch
        ]
        self._table("scalars").append(scalar_columns(costs))
        self.progress["step"] = batch[-1].step
        self.progress["measured"] += len(batch)
        self.progress["skipped"] += sum(m.skipped for m in batch)
        self._bytes_taken += sum(m.nbytes for m in batch)
        for problem in self._builder.problems:
            self.note(problem)
        self._ask(functools.partial(_feed, _as_tables(built)))

    def _finish(self) -> None:
        for name, columns in self._builder.finish().items():
            self._table(name).append(columns)

    def _change(self, first: Measurement) -> None:
        """Go on with other layers than before."""
        self._subject = subject = first.subject
        self._builder = TableBuilder(subject)
        self._manifest.change(subject, first.step)
        if self._judge is not None:
            self._judge.restart(subject)

    def _ask(self, ask: Callable[[Judge], Sequence[Found]]) -> None:
        """Ask the judge, who may fail without harm to the recording."""
        if self._judge is None:
            return
        try:
            found = ask(self._judge)
            problems = self._judge.problems
        except Exception as error:
            self._judge = None
            self.fail("judging", error)
            return
        for problem in problems:
            self.note(problem)
        if found:
            self._table("findings").append(finding_columns([f.row() for f in found]))

    def _table(self, name: str) -> TableWriter:
        if name not in self._writers:
            self._writers[name] = TableWriter(self._run, name)
        return self._writers[name]

    def _beat_if_due(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._beat()

    def _beat(self) -> None:
        self._manifest.beat()
        self._manifest.write()
        self._next_beat = time.monotonic() + HEARTBEAT

    def _flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()


def _feed(rows: Mapping[str, pa.Table], judge: Judge) -> Sequence[Found]:
    return judge.feed(rows)


def _as_tables(built: Mapping[str, list[pa.Array]]) -> dict[str, pa.Table]:
    return {
        name: pa.Table.from_arrays(columns, schema=arrow_schema(name))
        for name, columns in built.items()
    }


def _drained(queue: collections.deque[_T]) -> Iterator[_T]:
    """Take out what is in a queue by now, while another thread may add to it."""
    for _ in range(len(queue)):
        yield queue.popleft()
