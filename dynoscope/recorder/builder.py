"""A batch of measurements to the rows of each table."""

import collections
from collections.abc import Sequence

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

    def build(self, batch: Sequence[Measurement]) -> dict[str, list[pa.Array]]:
        """Rows of every table for consecutive measurements, in their order."""
        pieces: dict[str, list[list[pa.Array]]] = collections.defaultdict(list)
        for part, steps in zip(self._parts, self._splitter.split(batch), strict=True):
            if steps:
                for name, columns in part.build(steps).items():
                    pieces[name].append(columns)
        tables = {
            name: [pa.concat_arrays(columns) for columns in zip(*parts, strict=True)]
            for name, parts in pieces.items()
        }
        if any(measurement.histograms is not None for measurement in batch):
            tables |= self._sections.attempt(
                "histograms", lambda: self._histograms(batch)
            )
        return tables

    def _histograms(self, batch: Sequence[Measurement]) -> dict[str, list[pa.Array]]:
        columns = histogram_columns(self._names, batch)
        return {"histograms": arrays("histograms", columns)}
