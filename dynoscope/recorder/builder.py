"""A batch of measurements to the rows of each table."""

import collections
from collections.abc import Mapping, Sequence

import pyarrow as pa

from dynoscope.measurement import Measurement, Subject
from dynoscope.recorder.histograms import histogram_columns
from dynoscope.recorder.rounds import Splitter
from dynoscope.recorder.sections import Sections
from dynoscope.recorder.tables import PartTables, arrays

__all__ = ["TableBuilder"]


class TableBuilder:
    """Derives metrics and predictions; keeps what they need from step to step.

    Each optimizer's layers are followed by themselves, by the count of its own steps.

    Args:
        subject: what is watched.
    """

    def __init__(self, subject: Subject) -> None:
        self._sections, self._splitter = Sections(), Splitter(subject)
        self._parts = [
            PartTables(part.subject, part.groups.start, self._sections)
            for part in self._splitter.parts
        ]
        self._names = [layer.name for layer in subject.layers]

    @property
    def problems(self) -> list[str]:
        """What could not be predicted, and why."""
        return [problem for part in self._parts for problem in part.problems]

    @property
    def errors(self) -> dict[str, Exception]:
        """Which sections of the rows could not be made; see `Sections`."""
        return self._sections.errors

    def follow(self, tables: Mapping[str, pa.Table]) -> None:
        """Take in consecutive steps that a run holds already, before the first new one.

        What is predicted for the next steps is then what it would be had these steps
        been built here, but for the rounding of the columns to float32.

        Args:
            tables: rows of `layers`, `groups` and `silence`, of the same steps.
        """
        for part in self._parts:
            part.follow(tables)

    def finish(self) -> dict[str, list[pa.Array]]:
        """Rows that can be built only now that there are no more measurements."""
        return _joined([part.finish() for part in self._parts])

    def build(self, batch: Sequence[Measurement]) -> dict[str, list[pa.Array]]:
        """Rows of every table for consecutive measurements, in their order."""
        split = zip(self._parts, self._splitter.split(batch), strict=True)
        tables = _joined([part.build(seen) for part, seen in split if seen is not None])
        if any(measurement.histograms is not None for measurement in batch):
            tables |= self._sections.attempt(
                "histograms", lambda: self._histograms(batch)
            )
        return tables

    def _histograms(self, batch: Sequence[Measurement]) -> dict[str, list[pa.Array]]:
        columns = histogram_columns(self._names, batch)
        return {"histograms": arrays("histograms", columns)}


def _joined(parts: Sequence[dict[str, list[pa.Array]]]) -> dict[str, list[pa.Array]]:
    """Rows of several optimizers, table by table."""
    if len(parts) == 1:
        return parts[0]
    pieces: dict[str, list[list[pa.Array]]] = collections.defaultdict(list)
    for part in parts:
        for name, columns in part.items():
            pieces[name].append(columns)
    return {
        name: [pa.concat_arrays(columns) for columns in zip(*several, strict=True)]
        for name, several in pieces.items()
    }
