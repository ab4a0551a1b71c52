"""The writer thread: from the training's queue to the run folder."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from dynoscope.errors import MeasurementError
from dynoscope.measurement import Measurement, Rows, ScalarEntry, Subject, Work
from dynoscope.recorder.costs import Costs
from dynoscope.recorder.disk import Disk
from dynoscope.recorder.inbox import Inbox
from dynoscope.recorder.judging import Judge
from dynoscope.recorder.manifest import Manifest
from dynoscope.recorder.past import Past
from dynoscope.recorder.rowmaker import RowMaker
from dynoscope.recorder.sealing import Sealing
from dynoscope.recorder.tables import row_batch
from dynoscope.schema.cost import Cost, cost_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recorder"]

logger = logging.getLogger("dynoscope")

INTERVAL: Final = 0.4
"""Seconds that what is queued may wait, where a look at it costs next to nothing."""

LATEST: Final = 0.8
"""Seconds from a step until it is written, at most, if the look that writes it takes
three times as long as the one before: a SIGKILL loses the last second."""

SHARE: Final = 0.004
"""Share of a core that the writer may take before it looks less often: many steps at
once cost little more than one alone."""

HEARTBEAT: Final = 2.0
"""Seconds between updates of the manifest."""

QUEUE_BYTES: Final = 256 << 20
"""Host memory that may wait to be written before new measurements are skipped."""

PROBLEMS: Final = 100
"""Most problems that a run lists."""

LONGEST_CLOSE: Final = 120.0
"""Seconds that the end of the block waits for a disk that hangs."""


class Recorder:
    """Writes one run. `put` and `log` are for the training thread, never block.

    What fails costs the steps it was to record, is noted once, and is tried again at
    the next ones. In a forked process all methods do nothing: the run is its parent's.

    Args:
        run: the run's folder, which exists.
        subject: what is watched.
        settings: further content of the manifest.
        strict: raise errors of dynoscope's own instead of going on without it.
        judge: is given all rows, on the writer thread, if there is one.
        past: what the run held, if it is resumed.
        sealer: merges the files, if there is one.
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
        sealer: Sealing | None = None,
    ) -> None:
        self._run, self._strict = run, strict
        self._past, self._sealer = past, sealer
        self._home = os.getpid()
        self._manifest = Manifest.create(run, subject, settings)
        if past is not None:
            self._manifest.go_on(past)
        self._disk = Disk(run, self._manifest, self._trouble)
        self._costs = Costs(self._manifest, sealer)
        self._rows = RowMaker(
            subject, self._manifest, self._disk, self._costs, judge, self._trouble
        )
        self._inbox = Inbox()
        self._wake, self._done = threading.Event(), threading.Event()
        self._stopping = False
        self._ending: dict[str, Any] = {}
        self._error: BaseException | None = None
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

    @property
    def is_away(self) -> bool:
        """Whether this is a forked process, where there is no writer thread."""
        return os.getpid() != self._home

    @property
    def is_closing(self) -> bool:
        """Whether `close` has been called."""
        return self._stopping

    @property
    def is_closed(self) -> bool:
        """Whether all that could be written is."""
        return self._done.is_set()

    @property
    def cost(self) -> Cost:
        """What watching has cost so far."""
        return cost_of(self._manifest.content)

    @property
    def work(self) -> Work:
        """What its threads have done."""
        return self._costs.work

    def has_room(self) -> bool:
        """Whether another measurement can be taken."""
        if self.is_away:
            return False
        if self._error is not None and self._strict:
            raise self._error
        return (
            not (self._rows.is_off or self._disk.is_off) and self._waiting < QUEUE_BYTES
        )

    @property
    def _waiting(self) -> int:
        """Memory of all that is not written yet."""
        return self._inbox.nbytes + self._disk.nbytes

    def put(self, measurement: Measurement) -> None:
        """Queue a measurement."""
        if self.is_away:
            return
        self._inbox.put(measurement)
        if self._inbox.nbytes > QUEUE_BYTES // 4:
            self._wake.set()

    def log(self, entry: ScalarEntry) -> None:
        """Queue a number that the user logs."""
        if self.is_away:
            return
        if self._stopping:
            self.note(f"{entry.name!r} was logged after the block: it is not recorded")
        elif self._waiting < QUEUE_BYTES:
            self._inbox.log(entry)
        else:
            self._inbox.refused += 1

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
        if not self.is_away:
            self._inbox.record(rows.table, batch)
        frame: pd.DataFrame = batch.to_pandas()
        return frame

    def tell(self, **content: Any) -> None:
        """Put something into the manifest: what it refers to is written as it is."""
        self._manifest.content.update(content)

    def note(self, problem: str) -> None:
        """Record a problem in the run and say it, once; also when it is closed."""
        problems = self._manifest.content["problems"]
        if len(problems) == PROBLEMS:
            problem = "there are more problems than a run lists"
        if not self.is_away and problem not in problems and len(problems) <= PROBLEMS:
            problems.append(problem)
            logger.warning("dynoscope: %s", problem)
            if self.is_closed:
                self._disk.beat()

    def fail(self, problem: str, error: Exception) -> None:
        """Note an error of dynoscope's own, from the training thread.

        Raises:
            Exception: the error itself, if strict.
        """
        self._trouble(problem, error)
        if self._strict:
            raise error

    def close(self, failure: BaseException | None, skipped: int) -> None:
        """Write what is queued, end the thread, and say how the run ended.

        Args:
            failure: what ended the watched block, if an exception did.
            skipped: measurements given up since the last one that was put.

        Raises:
            BaseException: the first error of dynoscope's own, if strict.
        """
        if self.is_away:
            return
        if not self._stopping:
            text = None if failure is None else f"{type(failure).__name__}: {failure}"
            self._ending = {
                "status": "finished" if failure is None else "failed",
                "exception": text,
                "skipped": skipped,
            }
            self._stopping = True
            self._wake.set()
        # The garbage collector may end a watch on any thread, this one included.
        if threading.current_thread() is not self._thread:
            # A join that Ctrl-C interrupts may take the thread for ended.
            if self._done.wait(LONGEST_CLOSE):
                self._thread.join()
            else:
                self.note(f"{self._run} is still being written; leaving it to itself")
        if self._error is not None and self._strict and failure is None:
            raise self._error

    def _work(self) -> None:
        # NaN and infinity are measured, not mistakes: no warning, whatever the filter
        with np.errstate(all="ignore"):
            if self._past is not None:
                follow = functools.partial(self._rows.follow, self._past)
                self._attempt(lambda: follow(self._beat_if_due))
            patience = INTERVAL
            while not self._stopping:
                # What comes meanwhile is not kept waiting for longer than it is meant.
                is_called = self._wake.wait(max(patience - self._inbox.age, 0.0))
                self._wake.clear()
                if is_called or self._inbox.age >= patience:
                    patience = self._look()
                else:
                    self._attempt(self._rest)
            self._attempt(self._drain)
            self._attempt(self._rows.finish)
            self._attempt(self._disk.finish)
            self._attempt(self._seal)
            self._attempt(self._end)
            self._attempt(self._disk.close)
        self._done.set()

    def _look(self) -> float:
        """Empty the queue; give the seconds that what comes next may wait."""
        began, before = time.monotonic(), time.thread_time()
        self._attempt(self._drain)
        spent, took = time.thread_time() - before, time.monotonic() - began
        return min(max(spent / SHARE, INTERVAL), max(LATEST - 3 * took, INTERVAL))

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do a piece of work; the thread outlives any error in it."""
        try:
            work()
        except BaseException as error:
            self._trouble("recording failed", error)

    def _trouble(self, problem: str, error: BaseException | None = None) -> None:
        if error is not None:
            problem = f"{problem} ({type(error).__name__}: {error}); training goes on"
            self._error = self._error or error
        self.note(problem)

    def _drain(self) -> None:
        self._inbox.start()
        for batch in self._inbox.batches():
            self._attempt(functools.partial(self._rows.measured, batch))
            for measurement in batch:
                self._inbox.release(measurement)
            self._disk.write()  # before there are more: each holds as much again
            self._costs.done(len(batch))
        self._rows.logged(list(self._inbox.scalars()))
        for table, columns in self._inbox.rows():
            self._disk.add({table: columns})
        self._rest()

    def _rest(self) -> None:
        """What is to be done now and then, whether or not there is anything new."""
        self._rows.judge()
        self._disk.write()
        self._costs.done(0)
        self._beat_if_due()

    def _beat_if_due(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + HEARTBEAT
            self._disk.beat()
            if self._sealer is not None:
                self._sealer.look(self.note)

    def _seal(self) -> None:
        if self._sealer is not None:
            self._sealer.finish(self.note)

    def _end(self) -> None:
        """Say in the manifest how the run ended."""
        self.progress["skipped"] += self._ending.pop("skipped")
        self.progress["lost_rows"] += self._inbox.refused
        self._costs.done(0)
        self._manifest.content.update(self._ending, ended=time.time())
        self._disk.beat()
