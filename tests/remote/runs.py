"""Runs that are written row by row, and looks at what has arrived of them."""

import json
import time
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.tables import scalar_columns
from dynoscope.schema.folder import MANIFEST
from dynoscope.schema.process import Writer
from dynoscope.sealing.segment import write_segment
from dynoscope.sealing.sizes import Sizes


class Scalars:
    """A run with one table: row k is of step k."""

    made: ClassVar[list["Scalars"]] = []

    def __init__(self, folder: Path, **manifest: Any) -> None:
        self.folder, self.count = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        writer = Writer.current()
        self.manifest: dict[str, Any] = {
            "schema_version": 1,
            "status": "running",
            "created": time.time(),
            "heartbeat": time.time(),
            "writer": vars(writer),
            "rows": 0,
            **manifest,
        }
        self._writer = TableWriter(folder, "scalars")
        self.save()
        self.made.append(self)

    def append(self, rows: int = 1) -> None:
        steps = range(self.count, self.count + rows)
        self._writer.append(scalar_columns([(s, 0.5, "loss", s / 2) for s in steps]))
        self.count += rows

    def flush(self) -> None:
        self._writer.flush()

    def crash(self) -> None:
        """Leave the journal behind, as a killed process does; go on in a new one."""
        self._writer.abandon()
        self._writer = TableWriter(self.folder, "scalars")

    def seal(self, files: int = 3) -> None:
        """Merge the newest files, as a sealer does at any moment."""
        settled = Sizes(self.folder / "scalars").settled()[-files:]
        if len(settled) > 1:
            write_segment(self.folder / "scalars", [each.file for each in settled])

    def save(self, **changes: Any) -> None:
        self.manifest |= {"rows": self.count, **changes}
        (self.folder / MANIFEST).write_text(json.dumps(self.manifest))

    def close(self) -> None:
        self._writer.abandon()


def steps(table: pa.Table) -> list[int]:
    numbers: list[int] = table["step"].to_pylist()
    return numbers
