"""A stream of batches is whole after a write that fails half-way."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dynoscope.reader.files import read_table
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.stream import Stream
from dynoscope.recorder.tables import scalar_columns
from dynoscope.schema.arrow import arrow_schema


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes, as on a full disk."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


def batch(*steps: int) -> pa.RecordBatch:
    columns = scalar_columns([(step, 0.5, "loss", step / 2) for step in steps])
    return pa.record_batch(columns, schema=arrow_schema("scalars"))


def steps_in(stream: Stream) -> list[int]:
    return [step for each in stream.read() for step in each["step"].to_pylist()]


def test_what_was_appended_is_an_arrow_stream(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "a", arrow_schema("scalars"))
    for step in range(3):
        stream.append(batch(step).serialize())
    with pa.ipc.open_stream((tmp_path / "a").read_bytes()) as reader:
        assert reader.read_all()["step"].to_pylist() == [0, 1, 2]
    stream.close()
    with pa.ipc.open_stream((tmp_path / "a").read_bytes()) as reader:
        assert list(reader) == list(stream.read())


@pytest.mark.parametrize("room", [0, 1, 100])
def test_half_a_batch_is_taken_back(room: int, tmp_path: Path) -> None:
    stream = Stream(tmp_path / "a", arrow_schema("scalars"))
    stream.append(batch(0).serialize())
    size = stream.size
    with files_end_at(size + room), pytest.raises(OSError, match="too large"):
        stream.append(batch(1).serialize())
    assert (tmp_path / "a").stat().st_size == stream.size == size
    stream.append(batch(1).serialize())
    stream.close()
    assert steps_in(stream) == [0, 1]


def test_a_stream_that_cannot_begin_leaves_no_file(tmp_path: Path) -> None:
    with files_end_at(100), pytest.raises(OSError, match="too large"):
        Stream(tmp_path / "a", arrow_schema("scalars"))
    assert not list(tmp_path.iterdir())


def test_an_end_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    stream = Stream(tmp_path / "a", arrow_schema("scalars"))
    stream.append(batch(0, 1).serialize())
    with files_end_at(stream.size + 3):
        stream.close()
    assert (tmp_path / "a").stat().st_size == stream.size
    assert steps_in(stream) == [0, 1]


def test_a_part_that_does_not_fit_leaves_its_journal(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "scalars")
    writer.write(batch(0, 1).serialize(), 2)
    with files_end_at(500), pytest.raises(OSError, match="too large"):
        writer.flush()
    names = [path.name for path in (tmp_path / "scalars").iterdir()]
    assert names == ["journal-00000000.arrow"]
    writer.write(batch(2).serialize(), 1)
    writer.flush()
    table, problems = read_table(tmp_path, "scalars")
    assert table["step"].to_pylist() == [0, 1, 2]
    assert not problems
