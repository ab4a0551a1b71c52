"""Two runs side by side, a stretch of common steps at a time.

A run of 1e5 steps and 300 layers does not fit in memory whole; a stretch of it does.
Pieces to read follow the files, so that each is decoded once. Stretches to compare are
shorter, so that all threads have something to do: while some are compared, the next
pieces are being read.
"""

import bisect
import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from dynoscope.reader import Extent, Grid, Run

__all__ = ["Half", "Stretch", "stretches"]

_T = TypeVar("_T")

LEAST_ROWS: Final = 1 << 19
"""Small files are read together, up to about so many rows."""

MOST_ROWS: Final = 1 << 21
"""Rows that are held at once: of larger files, some steps at a time."""

STRETCH_ROWS: Final = 1 << 18
"""Rows of a run that are compared at once: far fewer than are read, so that threads end
together; so many that the work of numpy is large beside that of calling it, during
which other threads wait."""

THREADS: Final = 2
"""Stretches that are at work at once: each takes memory."""

KEPT: Final = 31 << 20
"""Bytes of memory up to which a piece is kept for the next one who needs it."""

IntArray = npt.NDArray[np.int64]


class Half(NamedTuple):
    """One of two runs, as far as a table of it is compared.

    Attributes:
        run: the run.
        table: name of the table.
        columns: its columns that are needed, numbers.
        layers: the layers that are, in alphabetic order.
        extents: which file of the table has which steps.
    """

    run: Run
    table: str
    columns: Sequence[str]
    layers: Sequence[str]
    extents: Sequence[Extent]


class Stretch(NamedTuple):
    """Some common steps of a table.

    Attributes:
        a: run a's rows.
        b: run b's rows of the same steps.
        lead: how many of these steps come first only for what is to be known of
            them: they are of the stretch before.
    """

    a: Grid
    b: Grid
    lead: int = 0

    @property
    def steps(self) -> IntArray:
        """Step numbers, ascending, without the lead."""
        return self.a.steps[self.lead :]


def stretches(
    a: Half,
    b: Half,
    steps: IntArray,
    begin: Callable[[], Callable[[Stretch], _T]],
    lead: int = 0,
) -> Iterator[_T]:
    """Go over both runs' rows, reading and working in several threads.

    Args:
        a: a run.
        b: the other.
        steps: the steps wanted, ascending.
        begin: called for each stretch in turn, in this thread, once the results of
            all but the last few have been taken; gives what is to be done with it.
        lead: steps before each stretch that are given with it, where there are any.

    Yields:
        What was made of each stretch, in their order.
    """
    _keep_memory()
    with ThreadPoolExecutor(THREADS, "dynoscope-diff") as pool:
        try:
            sides = [_Ahead(pool, half, steps, lead) for half in (a, b)]
            cuts = _cuts(sides, len(steps), max(len(a.layers), len(b.layers)))
            at_work: collections.deque[Future[_T]] = collections.deque()
            for start, stop in itertools.pairwise(cuts):
                for side in sides:
                    side.request(start)
                from_a, from_b = (side.part(start, stop) for side in sides)
                stretch = Stretch(from_a, from_b, min(start, lead))
                at_work.append(pool.submit(begin(), stretch))
                # else they would be held while the next ones are read
                del stretch, from_a, from_b
                if len(at_work) == THREADS:
                    yield at_work.popleft().result()
            while at_work:
                yield at_work.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _cuts(sides: Sequence["_Ahead"], steps: int, layers: int) -> list[int]:
    """Where to cut the steps, so that each stretch is in one piece of either run."""
    cuts = sorted({*sides[0].starts, *sides[1].starts, steps})
    width = max(1, STRETCH_ROWS // layers)
    found = [0]
    for start, stop in itertools.pairwise(cuts):
        count = -(-(stop - start) // width)
        found += [start + (stop - start) * (n + 1) // count for n in range(count)]
    return found


def _keep_memory() -> None:
    """Have glibc keep memory that is freed rather than hand it back to the system.

    Else the system clears the same memory again and again: half of all time. Pieces
    are kept up to the size of the largest one ever freed, if that is below 32 MB.
    """
    np.empty(KEPT, np.uint8)


class _Ahead:
    """Reads a run's rows, a piece at a time, before they are taken.

    Attributes:
        starts: positions of the steps at which pieces begin.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, half: Half, steps: IntArray, lead: int
    ) -> None:
        self._pool, self._half, self._steps, self._lead = pool, half, steps, lead
        self.starts = _starts(half.extents, steps)
        self._pieces: dict[int, Future[Grid]] = {}

    def request(self, position: int) -> None:
        """Begin to read the piece that has a step, and the one that comes then."""
        number = self._number(position)
        for each in (number, number + 1):
            if each < len(self.starts) and each not in self._pieces:
                self._pieces[each] = self._pool.submit(self._read, each)

    def part(self, start: int, stop: int) -> Grid:
        """Some steps, with their lead; earlier pieces than theirs are let go.

        They are in one piece, which was requested.
        """
        number = self._number(start)
        for passed in [n for n in self._pieces if n < number]:
            del self._pieces[passed]
        first = self._led(self.starts[number])
        whole = self._pieces[number].result()
        return whole.part(self._led(start) - first, stop - first)

    def _led(self, position: int) -> int:
        """Where the lead of the steps from a position on begins."""
        return max(position - self._lead, 0)

    def _number(self, position: int) -> int:
        return bisect.bisect_right(self.starts, position) - 1

    def _read(self, number: int) -> Grid:
        start, stop = [*self.starts, len(self._steps)][number : number + 2]
        run, table, columns, layers, _ = self._half
        return run.grid(table, columns, layers, self._steps[self._led(start) : stop])


def _starts(extents: Sequence[Extent], steps: IntArray) -> list[int]:
    """Where to cut the steps, so that each file is read once, if it is not large."""
    pieces: list[tuple[int, int, int]] = []  # first step, last step, rows
    for extent in sorted(extents, key=lambda extent: int(extent.steps[0])):
        first, last, rows = int(extent.steps[0]), int(extent.steps[-1]), extent.rows
        if pieces:
            start, end, before = pieces[-1]
            if first <= end or before + rows <= LEAST_ROWS:
                pieces.pop()
                first, last, rows = start, max(end, last), before + rows
        pieces.append((first, last, rows))
    starts = []
    for first, last, rows in pieces:
        start, stop = np.searchsorted(steps, [first, last + 1]).tolist()
        count = min(-(-rows // MOST_ROWS), stop - start)
        starts += [start + (stop - start) * n // count for n in range(count)]
    return [0, *starts[1:]]  # the first rows may come after the first steps
