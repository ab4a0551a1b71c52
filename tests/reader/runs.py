"""The same rows in runs whose files are parts, journals, segments, or all of these."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dynoscope.reader.files import list_files, read_table
from dynoscope.recorder.journal import TableWriter
from dynoscope.sealing import segment
from tests.sealing.runs import table_rows


def write_runs(
    folder: Path, table: str, steps: np.ndarray, layouts: Sequence[str]
) -> dict[str, Path]:
    """A run for each layout, with the same rows of one table.

    Args:
        folder: where they are made.
        table: the table.
        steps: its steps, rising.
        layouts: `journal`, `parts`, `segment`, or `mixed`: two segments, a part and a
            journal.
    """
    batches = np.array_split(steps, 12)
    runs = {}
    for layout in layouts:
        run = runs[layout] = folder / layout
        run.mkdir(parents=True)
        writer = TableWriter(run, table)
        for n, batch in enumerate(batches):
            writer.append(table_rows(table, batch.tolist(), seed=7))
            if layout != "journal" and not (layout == "mixed" and n > 9):
                writer.flush()
        writer.abandon()
        files = list_files(run, table)
        if layout == "segment":
            segment.write_segment(run / table, files)
        elif layout == "mixed":
            segment.write_segment(run / table, files[:5])
            segment.write_segment(run / table, files[5:9])
    return runs


def frame_of(run: Path, table: str) -> pd.DataFrame:
    """All rows of a run's table."""
    rows, problems = read_table(run, table)
    assert not problems
    frame: pd.DataFrame = rows.to_pandas()
    return frame
