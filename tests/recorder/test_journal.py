"""The files of a table: atomic, ordered, read once, damage named and skipped."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.reader.cursor import Cursor
from dynoscope.reader.files import read_table
from dynoscope.recorder import journal
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.tables import scalar_columns
from dynoscope.schema import SCHEMA_VERSION
from dynoscope.schema.arrow import arrow_schema


def rows(*steps: int) -> list[pa.Array]:
    return scalar_columns([(step, 0.5, "loss", step / 2) for step in steps])


def steps_in(run: Path) -> tuple[list[int], list[str]]:
    table, problems = read_table(run, "scalars")
    return table["step"].to_pylist(), problems


def names_in(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "scalars").iterdir())


def test_rows_are_there_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "scalars")
    for step in range(3):
        writer.append(rows(step))
        assert steps_in(tmp_path) == (list(range(step + 1)), [])
    assert names_in(tmp_path) == ["journal-00000000.arrow"]
    writer.flush()
    assert names_in(tmp_path) == ["part-00000000.parquet"]
    assert steps_in(tmp_path) == ([0, 1, 2], [])


def test_a_full_journal_becomes_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_ROWS", 4)
    writer = TableWriter(tmp_path, "scalars")
    for step in range(10):
        writer.append(rows(step))
    assert names_in(tmp_path) == [
        "journal-00000002.arrow",
        "part-00000000.parquet",
        "part-00000001.parquet",
    ]
    assert steps_in(tmp_path) == (list(range(10)), [])
    writer.abandon()


def test_a_large_part_is_written_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "GROUP_ROWS", 4)
    writer = TableWriter(tmp_path, "scalars")
    for step in range(10):
        writer.append(rows(step))
    writer.flush()
    part = pq.ParquetFile(tmp_path / "scalars" / "part-00000000.parquet")
    assert part.num_row_groups == 3
    assert steps_in(tmp_path) == (list(range(10)), [])
    part.close()


def test_a_slow_run_has_few_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer = TableWriter(tmp_path, "scalars")
    counts, minute, day = {}, 60, 86_400
    for step in range(7 * day // minute):
        writer.append(rows(step))
        now[0] += minute
        counts[now[0]] = writer._number
    writer.abandon()
    assert counts[60 * minute] < 30
    assert counts[day] < 55
    assert counts[7 * day] < 75
    assert steps_in(tmp_path) == (list(range(7 * day // minute)), [])


def test_parts_are_plain_parquet_with_units(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "scalars")
    writer.append(rows(1, 2))
    writer.flush()
    table = pq.read_table(tmp_path / "scalars")
    assert table.schema.equals(arrow_schema("scalars"))
    assert table.schema.field("wall_time").metadata[b"unit"] == b"s"
    assert table.schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


def test_a_journal_beside_its_part_is_not_read_again(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "scalars")
    writer.append(rows(0, 1))
    left_over = (tmp_path / "scalars" / "journal-00000000.arrow").read_bytes()
    writer.flush()
    (tmp_path / "scalars" / "journal-00000000.arrow").write_bytes(left_over)
    assert steps_in(tmp_path) == ([0, 1], [])


def test_half_a_part_under_its_temporary_name_is_not_read(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, "scalars")
    writer.append(rows(0, 1))
    (tmp_path / "scalars" / "part-00000000.parquet.tmp").write_bytes(b"PAR1 half")
    assert steps_in(tmp_path) == ([0, 1], [])
    writer.abandon()


def test_a_new_writer_goes_on_after_what_is_there(tmp_path: Path) -> None:
    first = TableWriter(tmp_path, "scalars")
    first.append(rows(0))
    first.abandon()  # as after a crash: its journal stays
    second = TableWriter(tmp_path, "scalars")
    second.append(rows(1))
    second.flush()
    assert names_in(tmp_path) == ["journal-00000000.arrow", "part-00000001.parquet"]
    assert steps_in(tmp_path) == ([0, 1], [])


@settings(deadline=None, max_examples=40)
@given(cut=st.floats(0, 1))
def test_a_truncated_journal_keeps_its_whole_batches(
    cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("run")
    writer = TableWriter(run, "scalars")
    path = run / "scalars" / "journal-00000000.arrow"
    ends = []
    for step in range(5):
        writer.append(rows(step))
        ends.append(path.stat().st_size)
    content = path.read_bytes()
    length = int(cut * len(content))
    path.write_bytes(content[:length])
    found, problems = steps_in(run)
    assert found == [step for step, end in enumerate(ends) if end <= length]
    whole = length in ends or length == 0
    if not whole and length > ends[0]:
        assert "scalars/journal-00000000.arrow" in problems[0]
    writer.abandon()


@pytest.mark.parametrize("name", ["part-00000000.parquet", "journal-00000001.arrow"])
@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty"])
def test_damage_is_named_and_the_rest_is_read(
    tmp_path: Path, name: str, damage: str
) -> None:
    for start in (0, 2, 4):
        writer = TableWriter(tmp_path, "scalars")
        writer.append(rows(start, start + 1))
        if start != 2:
            writer.flush()
        else:
            writer.abandon()
    path = tmp_path / "scalars" / name
    content = path.read_bytes()
    path.write_bytes(
        {"garbage": b"\x8f" * 400, "truncated": content[:-60], "empty": b""}[damage]
    )
    found, problems = steps_in(tmp_path)
    hurt = {"part-00000000.parquet": {0, 1}, "journal-00000001.arrow": {2, 3}}[name]
    assert set(range(6)) - hurt <= set(found)
    assert len(problems) == 1
    assert f"scalars/{name}" in problems[0]


@settings(deadline=None, max_examples=30)
@given(
    events=st.lists(st.sampled_from(["append", "flush", "poll"]), max_size=30),
)
def test_a_cursor_gives_every_row_once_in_order(
    events: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = tmp_path_factory.mktemp("run")
    writer, cursor = TableWriter(run, "scalars"), Cursor(run, "scalars")
    written, seen = 0, []
    for event in [*events, "poll"]:
        if event == "append":
            writer.append(rows(written, written + 1))
            written += 2
        elif event == "flush":
            writer.flush()
        else:
            seen += cursor.poll()["step"].to_pylist()
            assert seen == list(range(written))
    assert not cursor.problems
    writer.abandon()
