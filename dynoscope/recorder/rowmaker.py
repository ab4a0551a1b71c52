"""Measurements to rows on the disk; what fails costs the steps it is about."""

import itertools
from collections.abc import Callable, Sequence
from typing import Final

from dynoscope.measurement import Measurement, ScalarEntry, Subject
from dynoscope.metrics.shipping import Shipped, unpack
from dynoscope.recorder.builder import TableBuilder
from dynoscope.recorder.costs import Costs
from dynoscope.recorder.disk import Disk, Trouble
from dynoscope.recorder.inbox import landed
from dynoscope.recorder.judging import Judge, Judging
from dynoscope.recorder.manifest import Manifest
from dynoscope.recorder.past import Past
from dynoscope.recorder.scalers import Scalers
from dynoscope.recorder.tables import scalar_columns

__all__ = ["RowMaker"]

NOT_HERE: Final = "a step's numbers did not arrive"

PATIENCE: Final = 3
"""Failures in a row after which nothing more is recorded."""


class RowMaker:
    """Turns what a run measures into rows, and shows them to the judge.

    A batch that cannot be turned into rows is lost and counted, and the next one is
    tried; after some such failures in a row, nothing is any more.

    Args:
        subject: what is watched.
        manifest: of the run, whose `progress` is counted here, too.
        disk: takes the rows.
        costs: keeps account of them.
        judge: is given all rows, if there is one.
        trouble: is told what goes wrong.

    Attributes:
        is_off: whether nothing is recorded any more.
    """

    def __init__(
        self,
        subject: Subject,
        manifest: Manifest,
        disk: Disk,
        costs: Costs,
        judge: Judge | None,
        trouble: Trouble,
    ) -> None:
        self._subject, self._builder = subject, TableBuilder(subject)
        self._manifest, self._progress = manifest, manifest.content["progress"]
        self._disk, self._costs, self._trouble = disk, costs, trouble
        self._judging, self._scalers = Judging(judge, trouble), Scalers()
        self._failures, self.is_off = 0, False

    def follow(self, past: Past, meanwhile: Callable[[], None]) -> None:
        """Bring predictions and judge to where the run was left.

        Args:
            past: what the run holds.
            meanwhile: called now and then.
        """
        try:
            for rows in past.rows:
                self._builder.follow(rows)
                self._disk.add(self._judging.feed(rows))
                meanwhile()
        except Exception as error:
            self._builder = TableBuilder(self._subject)
            self._trouble(
                f"predictions start anew at step {past.step}: the steps before cannot "
                "be followed",
                error,
            )

    def measured(self, batch: Sequence[Measurement]) -> None:
        """Make rows of consecutive measurements."""
        self._progress["skipped"] += sum(m.skipped for m in batch)
        for _, alike in itertools.groupby(
            self._landed(batch), key=lambda m: id(m.subject)
        ):
            group = list(alike)
            try:
                self._build(group)
                self._failures = 0
            except Exception as error:
                what = "steps could not be turned into rows"
                self._stumble(what, error, len(group))

    def logged(self, entries: Sequence[ScalarEntry]) -> None:
        """Make rows of logged numbers."""
        rows = [row for row in map(self._read, entries) if row is not None]
        try:
            if rows:
                self._disk.add({"scalars": scalar_columns(rows)})
        except Exception as error:
            self._progress["lost_rows"] += len(rows)
            self._trouble("numbers that were logged are lost", error)

    def judge(self, *, at_once: bool = False) -> None:
        """Show the judge the rows that wait for him, if that is due."""
        if not (at_once or self._judging.is_due):
            return
        try:
            self._disk.add(self._judging.show())
        except Exception as error:  # the steps themselves are on their way
            self._trouble("findings are lost", error)

    def finish(self) -> None:
        """Make the rows that can be made only now that there is no more."""
        last = self._builder.finish, self._judging.show, self._judging.finish
        for rows in last:
            try:
                self._disk.add(rows())
            except Exception as error:
                self._trouble("the last rows could not be made", error)

    def _build(self, batch: Sequence[Measurement]) -> None:
        if batch[0].subject is not self._subject:
            self._change(batch[0])
        kept, scalars = self._sifted(batch)
        tables = built = self._builder.build(kept) if kept else {}
        scalars += self._costs.rows(kept)
        if scalars:
            tables = {**built, "scalars": scalar_columns(scalars)}
        self._disk.add(tables, [m.step for m in kept])
        for problem in self._builder.problems:
            self._trouble(problem)
        for problem, error in self._builder.errors.items():
            self._trouble(problem, error)
        if built:
            self._judging.keep(built)
        self.judge()

    def _sifted(
        self, batch: Sequence[Measurement]
    ) -> tuple[Sequence[Measurement], list[tuple[int, float, str, float]]]:
        """Measurements that have a step, and rows of their scalers' scales."""
        try:
            kept, overflowed, scales = self._scalers.sift(batch)
        except Exception as error:
            self._trouble("gradient scalers cannot be followed", error)
            return [m for m in batch if any(s is not None for s in m.own_steps)], []
        self._progress["overflowed"] += overflowed
        return kept, scales

    def _change(self, first: Measurement) -> None:
        """Go on with other layers than before."""
        self._builder = TableBuilder(first.subject)
        self._subject = first.subject
        self._manifest.change(first.subject, first.step)
        self.judge(at_once=True)
        self._judging.restart(first.subject)

    def _landed(self, batch: Sequence[Measurement]) -> list[Measurement]:
        """Measurements whose numbers are here, without those that do not arrive."""
        here = [m for m in map(self._awaited, batch) if m is not None]
        try:
            unpack([m.fetch for m in here if isinstance(m.fetch, Shipped)])
        except Exception as error:
            self._stumble(NOT_HERE, error, len(here))
            return []
        return [measurement for measurement in here if self._is_whole(measurement)]

    def _awaited(self, measurement: Measurement) -> Measurement | None:
        """A measurement whose numbers have landed; None if they do not arrive."""
        if self.is_off:
            self._progress["lost"] += 1
            return None
        try:
            return landed(measurement)
        except Exception as error:
            self._stumble(NOT_HERE, error, 1)
            return None

    def _is_whole(self, measurement: Measurement) -> bool:
        failed = measurement.fetch().failed
        if failed:
            self._progress["lost"] += 1
            self._trouble(
                f"measuring failed on process {', '.join(map(str, failed))}, where it "
                "is said why; without its shards nothing is recorded"
            )
        return not failed

    def _read(self, entry: ScalarEntry) -> tuple[int, float, str, float] | None:
        try:
            return entry.step, entry.wall_time, entry.name, entry.fetch()
        except Exception as error:
            self._progress["lost_rows"] += 1
            self._trouble(f"{entry.name!r}, which was logged, did not arrive", error)
            return None

    def _stumble(self, problem: str, error: Exception, steps: int) -> None:
        self._progress["lost"] += steps
        self._trouble(problem, error)
        self._failures += 1
        if self._failures == PATIENCE:
            self.is_off = True
            self._trouble(
                f"recording failed {PATIENCE} times in a row and is off from now on"
            )
