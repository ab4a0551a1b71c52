"""What waits for the writer's thread, and how much memory that takes."""

import collections
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import pyarrow as pa

from dynoscope.measurement import Measurement, ScalarEntry
from dynoscope.metrics.shipping import Shipped
from dynoscope.recorder.grouping import in_groups

__all__ = ["Inbox", "landed"]

_T = TypeVar("_T")

SCALAR_BYTES: Final = 1 << 10
"""About what a logged number takes until it is fetched."""

BATCH_BYTES: Final = 4 << 20
"""Size from which on measurements are enough to be turned into rows: more at once is
not cheaper, and takes memory."""


class Inbox:
    """Queues from the training's threads to the writer's; no side waits for the other.

    Attributes:
        refused: logged numbers that there was no room for.
    """

    def __init__(self) -> None:
        self._measurements: collections.deque[Measurement] = collections.deque()
        self._scalars: collections.deque[ScalarEntry] = collections.deque()
        self._rows: collections.deque[tuple[str, pa.RecordBatch]] = collections.deque()
        # Each counter has one writing thread, so no lock is needed.
        self._bytes_put, self._bytes_taken, self.refused = 0, 0, 0
        self._since: float | None = None

    @property
    def age(self) -> float:
        """Seconds that the oldest of what waits has waited; 0 if nothing does."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """What waits is going to be taken out, all of it."""
        self._since = None

    @property
    def nbytes(self) -> int:
        """Host memory that is waiting."""
        return self._bytes_put - self._bytes_taken

    def put(self, measurement: Measurement) -> None:
        """Queue a measurement."""
        self._bytes_put += measurement.nbytes
        self._measurements.append(measurement)
        self._note_time()

    def log(self, entry: ScalarEntry) -> None:
        """Queue a logged number."""
        self._bytes_put += SCALAR_BYTES
        self._scalars.append(entry)
        self._note_time()

    def record(self, table: str, rows: pa.RecordBatch) -> None:
        """Queue rows measured on demand."""
        self._rows.append((table, rows))
        self._note_time()

    def _note_time(self) -> None:
        # After it is queued: in between, `start` would forget the time and leave it.
        if self._since is None:
            self._since = time.monotonic()

    def batches(self) -> Iterator[list[Measurement]]:
        """Take out the measurements; their memory counts until `release`."""
        waiting = _drained(self._measurements)
        return in_groups(waiting, lambda measurement: measurement.nbytes, BATCH_BYTES)

    def release(self, measurement: Measurement) -> None:
        """A measurement that was taken out is needed no more."""
        self._bytes_taken += measurement.nbytes

    def scalars(self) -> Iterator[ScalarEntry]:
        """Take out the logged numbers."""
        for entry in _drained(self._scalars):
            self._bytes_taken += SCALAR_BYTES
            yield entry

    def rows(self) -> Iterator[tuple[str, list[pa.Array]]]:
        """Take out the rows measured on demand: a table, and its columns."""
        for table, batch in _drained(self._rows):
            yield table, batch.columns


def landed(measurement: Measurement) -> Measurement:
    """The measurement with its numbers on the host; waits for them.

    Those that lie packed there stay so, for `unpack` to do many at once.
    """
    fetch, groups = measurement.fetch, measurement.groups()
    if isinstance(fetch, Shipped):
        fetch.wait()
    else:
        fetch = _giving(fetch())
    counts = measurement.histograms and measurement.histograms()
    return measurement._replace(
        fetch=fetch,
        groups=_giving(groups),
        histograms=None if counts is None else _giving(counts),
    )


def _giving(value: _T) -> Callable[[], _T]:
    return lambda: value


def _drained(queue: collections.deque[_T]) -> Iterator[_T]:
    """Take out what is in a queue by now, while another thread may add to it."""
    for _ in range(len(queue)):
        yield queue.popleft()
