"""Write a segment: the rows of several files, sorted by curve and step.

All values of one column of one layer lie together, so that a curve is read without
the others; lr and wall_time, the same for all layers, compress to almost nothing.
"""

import contextlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynoscope.errors import DynoscopeError
from dynoscope.reader.files import read_placed
from dynoscope.schema.folder import (
    LEVELS,
    ROW,
    SORTED_BY,
    STARTS,
    TEMPORARY,
    TableFile,
    current_files,
    segment_name,
    superseded_files,
    superseded_levels,
)
from dynoscope.schema.levels import BUCKETED
from dynoscope.sealing.coarse import coarse_rows

__all__ = ["CancelledError", "DamagedError", "clear", "cut_segment", "write_segment"]

GROUP_ROWS: Final = 1 << 16
"""Rows of a row group, about: as many layers as fit, whole, or a piece of one."""

DISTINCT: Final = 1 << 11
"""A column with fewer different values than this is written as a dictionary."""

IntArray = npt.NDArray[np.int64]


class CancelledError(DynoscopeError):
    """A segment is not to be finished."""


class DamagedError(DynoscopeError):
    """A file cannot be read whole, so it is not to be replaced."""

    def __init__(self, problem: str, file: TableFile) -> None:
        super().__init__(problem)
        self.file = file


def write_segment(
    folder: Path, files: Sequence[TableFile], check: Callable[[], None] = lambda: None
) -> None:
    """Merge consecutive files of a table into a segment, which then replaces them.

    It holds all rows and a column more in memory. Nothing is lost at any moment:
    the files go when the segment has its name and is on the disk.

    Args:
        folder: the table's folder.
        files: files that count, and that nobody writes any more.
        check: called now and then; what it raises ends the work, with no trace.

    Raises:
        DamagedError: one of them cannot be read whole; nothing was changed.
        FileNotFoundError: one of them is gone: somebody else has merged them.
        OSError: the disk is full, or fails in another way; nothing was changed.
    """
    rows, starts = _sorted(folder, files, check)
    covered = files[0]._replace(last=files[-1].last)
    _put(folder, covered, rows, starts, check)
    clear(folder)
    del rows
    pa.default_memory_pool().release_unused()


def cut_segment(folder: Path, file: TableFile, stop: int) -> None:
    """Leave the rows of a segment that come before a step; replaces it in one go.

    Places stay as they are, with gaps: who has read some of the rows goes on.

    Raises:
        DamagedError: it cannot be read whole; nothing was changed.
    """
    rows, starts = _gathered(folder, [file])
    _put(folder, file, rows.filter(pc.less(rows["step"], stop)), starts)
    clear(folder)


def _put(
    folder: Path,
    file: TableFile,
    rows: pa.Table,
    starts: Sequence[int],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write a segment, its levels first, which count from when it does."""
    table, key = folder.name, SORTED_BY.get(folder.name, "layer")
    levels = folder.parent / LEVELS / file.levels(table)
    coarse = coarse_rows(table, rows) if table in BUCKETED else None
    if coarse is not None:
        levels.parent.mkdir(exist_ok=True)
        _write(levels, coarse, ["level", key], check)
    else:
        levels.unlink(missing_ok=True)
    metadata = {**(rows.schema.metadata or {}), STARTS: json.dumps(starts)}
    rows = rows.replace_schema_metadata(metadata)
    _write(folder / segment_name(file.number, file.last), rows, [key], check)


def clear(folder: Path) -> None:
    """Remove what a segment has superseded, and half-written segments."""
    levels = folder.parent / LEVELS
    names = [path.name for path in folder.iterdir()]
    coarse = [path.name for path in levels.glob(f"{folder.name}-*")]
    gone = [folder / name for name in superseded_files(names)]
    for name in superseded_levels(folder.name, coarse, current_files(names)):
        gone.append(levels / name)
    gone += folder.glob(f"segment-*{TEMPORARY}")
    gone += levels.glob(f"{folder.name}-*{TEMPORARY}")
    for path in gone:
        path.unlink(missing_ok=True)


def _gathered(folder: Path, files: Sequence[TableFile]) -> tuple[pa.Table, list[int]]:
    """All rows, with their places, and at which place each number begins."""
    pieces, starts, end = [], list[int](), 0
    for file in files:
        starts += [end] * (file.number - files[0].number - len(starts))
        rows, begins, problem = read_placed(folder, file)
        if problem:
            raise DamagedError(problem, file)
        shifted = pa.array(rows[ROW].to_numpy() + end)
        at = rows.schema.get_field_index(ROW)
        pieces.append(rows.set_column(at, rows.schema.field(at), shifted))
        starts += [end + begin for begin in begins[:-1]]
        end += begins[-1]
    return pa.concat_tables(pieces), [*starts, end]


def _sorted(
    folder: Path, files: Sequence[TableFile], check: Callable[[], None]
) -> tuple[pa.Table, list[int]]:
    """Rows by curve, then step, then place; where files begin, see `_gathered`."""
    rows, starts = _gathered(folder, files)
    curve = rows[SORTED_BY.get(folder.name, "layer")].combine_chunks()
    if pa.types.is_string(curve.type):
        coded = curve.dictionary_encode()
        rank = np.argsort(np.argsort(coded.dictionary.to_numpy(zero_copy_only=False)))
        curve = pa.array(rank[coded.indices.to_numpy()])
    order = pa.array(np.lexsort((rows[ROW], rows["step"], curve)))
    for at, field in enumerate(rows.schema):
        check()
        column = rows.column(at).combine_chunks().take(order)
        rows = rows.set_column(at, field, column)  # the old one goes
    return rows, starts


def _write(
    path: Path, rows: pa.Table, keys: Sequence[str], check: Callable[[], None]
) -> None:
    """Write a Parquet file, safe on the disk before it bears its name."""
    mark = f"{os.getpid()}-{threading.get_ident()}"  # two may be at the same work
    draft = path.with_name(f"{path.name}.{mark}{TEMPORARY}")
    try:
        with pq.ParquetWriter(
            draft,
            rows.schema,
            compression="zstd",
            write_statistics=[*keys, "step"],
            **_encodings(rows),
        ) as writer:
            for start, stop in itertools.pairwise(_cuts(rows, keys)):
                check()
                writer.write_table(rows.slice(start, stop - start))
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
    except Exception:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            draft.unlink()
        raise
    draft.replace(path)


def _cuts(rows: pa.Table, keys: Sequence[str]) -> list[int]:
    """Where row groups begin, and the end: layers whole where they are short.

    Rows with another value in the first of two keys never share a group.
    """
    changes = [_changes(rows[key]) for key in keys]
    runs = np.unique(np.concatenate([[0], *changes, [len(rows)]]))
    forced = set(changes[0].tolist()) if len(keys) > 1 else set()
    cuts = [0]
    for start, stop in itertools.pairwise(runs.tolist()):
        if start in forced or (start > cuts[-1] and stop - cuts[-1] > GROUP_ROWS):
            cuts.append(start)
        pieces = -(-(stop - start) // GROUP_ROWS)
        cuts += [start + (stop - start) * n // pieces for n in range(1, pieces)]
    return [*cuts, len(rows)]


def _changes(column: pa.ChunkedArray) -> IntArray:
    """Rows whose value is not that of the row before."""
    values = column.combine_chunks()
    differs = pc.not_equal(values[1:], values[:-1])
    return np.flatnonzero(differs.to_numpy(zero_copy_only=False)) + 1


def _encodings(rows: pa.Table) -> dict[str, Any]:
    """Exact for all, and small: of floats, bytes of one place lie together."""
    dictionary, others = [], {}
    for field in rows.schema:
        if pa.types.is_list(field.type):
            dictionary.append(f"{field.name}.list.element")
        elif pa.types.is_floating(field.type) and not _is_repetitive(rows[field.name]):
            others[field.name] = "BYTE_STREAM_SPLIT"
        elif field.name in ("step", ROW):
            others[field.name] = "DELTA_BINARY_PACKED"
        else:
            dictionary.append(field.name)
    return {"use_dictionary": dictionary, "column_encoding": others}


def _is_repetitive(column: pa.ChunkedArray) -> bool:
    """Whether a column has few different values: settings, and what follows them."""
    return all(
        pc.count_distinct(part).as_py() < DISTINCT
        for part in (column[: 4 * DISTINCT], column)
    )
