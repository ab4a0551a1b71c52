"""Write a segment: the rows of several files, sorted by curve and step.

All values of one column of one layer lie together, so that a curve is read without
the others; lr and wall_time, the same for all layers, compress to almost nothing.
"""

import contextlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynoscope.errors import DynoscopeError
from dynoscope.schema.arrow import arrow_schema
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
from dynoscope.sealing.gather import DamagedError, Gathered
from dynoscope.sealing.spill import Spilled

__all__ = ["CancelledError", "DamagedError", "clear", "cut_segment", "write_segment"]

GROUP_ROWS: Final = 1 << 16
"""Rows of a row group, about: as many layers as fit, whole, or a piece of one."""

DISTINCT: Final = 1 << 11
"""A column with fewer different values than this is written as a dictionary."""

IntArray = npt.NDArray[np.int64]


class CancelledError(DynoscopeError):
    """A segment is not to be finished."""


def write_segment(
    folder: Path, files: Sequence[TableFile], check: Callable[[], None] = lambda: None
) -> None:
    """Merge consecutive files of a table into a segment, which then replaces them.

    It holds a column of all rows in memory, and their keys. Nothing is lost at any
    moment: the files go when the segment has its name and is on the disk.

    Args:
        folder: the table's folder.
        files: files that count, and that nobody writes any more.
        check: called now and then; what it raises ends the work, with no trace.

    Raises:
        DamagedError: one of them cannot be read whole; nothing was changed.
        FileNotFoundError: one of them is gone: somebody else has merged them.
        OSError: the disk is full, or fails in another way; nothing was changed.
    """
    covered = files[0]._replace(last=files[-1].last)
    with Spilled(folder) as rows:
        starts = _sort(folder, files, rows, check=check)
        _put(folder, covered, rows, starts, check)
    clear(folder)
    _release()


def cut_segment(folder: Path, file: TableFile, stop: int) -> None:
    """Leave the rows of a segment that come before a step; replaces it in one go.

    Places stay as they are, with gaps: who has read some of the rows goes on.

    Raises:
        DamagedError: it cannot be read whole; nothing was changed.
    """
    with Spilled(folder) as rows:
        starts = _sort(folder, [file], rows, stop=stop)
        _put(folder, file, rows, starts)
    clear(folder)


def _put(
    folder: Path,
    file: TableFile,
    rows: Spilled,
    starts: Sequence[int],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write a segment, its levels first, which count from when it does."""
    table, key = folder.name, SORTED_BY.get(folder.name, "layer")
    levels = folder.parent / LEVELS / file.levels(table)
    coarse = coarse_rows(table, rows) if table in BUCKETED else None
    if coarse is not None:
        levels.parent.mkdir(exist_ok=True)
        _write(levels, coarse, coarse.schema.metadata, ["level", key], check)
    else:
        levels.unlink(missing_ok=True)
    metadata = {**arrow_schema(table).metadata, STARTS: json.dumps(starts)}
    path = folder / segment_name(file.number, file.last)
    _write(path, rows, metadata, [key], check)


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


def _sort(
    folder: Path,
    files: Sequence[TableFile],
    rows: Spilled,
    *,
    stop: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[int]:
    """Fill in rows by curve, then step, then place; give where files begin."""
    with Gathered(folder, files) as gathered:
        order = _order(gathered, SORTED_BY.get(folder.name, "layer"), stop)
        for field in gathered.schema:
            check()
            rows.add(field, _taken(gathered.column(field.name), order))
            _release()
        return gathered.starts


def _order(gathered: Gathered, key: str, stop: int | None) -> IntArray:
    """The places of rows in their order, those of steps before `stop` only."""
    curve, steps = gathered.column(key), gathered.column("step").to_numpy()
    if pa.types.is_dictionary(curve.type):
        names = curve.dictionary.to_numpy(zero_copy_only=False)
        curve = np.argsort(np.argsort(names))[curve.indices]
    order: IntArray = np.lexsort((gathered.column(ROW), steps, curve))
    return order if stop is None else order[steps[order] < stop]


def _release() -> None:
    """Give what Arrow keeps for later back to the system: it is the training's."""
    pa.default_memory_pool().release_unused()


def _taken(column: pa.Array, order: IntArray) -> pa.Array:
    """A column in another order, in memory of its size."""
    if pa.types.is_dictionary(column.type):
        codes = pa.array(column.indices.to_numpy()[order])
        return pa.DictionaryArray.from_arrays(codes, column.dictionary)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return pa.array(column.to_numpy()[order])
    return column.take(pa.array(order))


def _write(
    path: Path,
    rows: pa.Table | Spilled,
    metadata: Mapping[Any, Any],
    keys: Sequence[str],
    check: Callable[[], None],
) -> None:
    """Write a Parquet file, safe on the disk before it bears its name."""
    mark = f"{os.getpid()}-{threading.get_ident()}"  # two may be at the same work
    draft = path.with_name(f"{path.name}.{mark}{TEMPORARY}")
    schema = _decoded(rows.schema).with_metadata(metadata)
    try:
        with pq.ParquetWriter(
            draft,
            schema,
            compression="zstd",
            write_statistics=[*keys, "step"],
            **_encodings(rows),
        ) as writer:
            _release()
            for start, stop in itertools.pairwise(_cuts(rows, keys)):
                check()
                writer.write_table(rows.slice(start, stop - start).cast(schema))
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
    except Exception:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            draft.unlink()
        raise
    draft.replace(path)


def _decoded(schema: pa.Schema) -> pa.Schema:
    """The schema with strings as strings."""
    fields = [
        field.with_type(field.type.value_type)
        if pa.types.is_dictionary(field.type)
        else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _cuts(rows: pa.Table | Spilled, keys: Sequence[str]) -> list[int]:
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
    if not pa.types.is_primitive(values.type):
        values = values.dictionary_encode().indices
    numbers = values.to_numpy()
    return np.flatnonzero(numbers[1:] != numbers[:-1]) + 1


def _encodings(rows: pa.Table | Spilled) -> dict[str, Any]:
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
