"""Segments hold what their parts held, whatever happens while they are written."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.reader.cursor import Cursor
from dynoscope.reader.files import list_files, read_table
from dynoscope.schema import TABLES
from dynoscope.schema.folder import SORTED_BY
from dynoscope.sealing import coarse, segment
from dynoscope.sealing.segment import (
    CancelledError,
    DamagedError,
    cut_segment,
    write_segment,
)
from tests.sealing.runs import LAYERS, table_rows, write


class Killed(BaseException):
    """The process ends here; nothing in the code may catch it."""


def content(run: Path, table: str) -> pd.DataFrame:
    rows, problems = read_table(run, table)
    assert not problems
    frame: pd.DataFrame = rows.to_pandas()
    return frame


def seal(folder: Path, first: int = 0, stop: int | None = None) -> None:
    write_segment(folder, list_files(folder.parent, folder.name)[first:stop])


@pytest.mark.parametrize("table", TABLES)
def test_a_segment_has_the_rows_of_its_parts_in_their_order(
    table: str, tmp_path: Path
) -> None:
    write(tmp_path, table, [range(5), range(5, 7), [9]], open_=True)
    before = content(tmp_path, table)
    seal(tmp_path / table)
    pd.testing.assert_frame_equal(content(tmp_path, table), before, check_exact=True)
    assert len(before) == 8 * len(LAYERS)
    (file,) = list_files(tmp_path, table)
    assert file.is_segment
    # In the file itself rows lie by curve, then step.
    key = SORTED_BY.get(table, "layer")
    rows = pq.read_table(tmp_path / table / file.name, columns=[key, "step"])
    frame = rows.to_pandas()
    assert frame.equals(frame.sort_values([key, "step"], ignore_index=True))


@settings(deadline=None, max_examples=25)
@given(
    parts=st.lists(st.integers(1, 3), min_size=2, max_size=7),
    events=st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 4), st.booleans()), max_size=6
    ),
    limit=st.sampled_from([None, 1, 7]),
)
def test_cursors_do_not_notice_sealing(
    parts: list[int],
    events: list[tuple[int, int, bool]],
    limit: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Wherever they stand when the files around them are merged."""
    run = tmp_path_factory.mktemp("run")
    folder = run / "scalars"
    ends = np.cumsum(parts).tolist()
    steps = [range(end - n, end) for n, end in zip(parts, ends, strict=True)]
    write(run, "scalars", steps, open_=True)
    wanted = content(run, "scalars")
    cursor, seen = Cursor(run, "scalars"), []
    for first, count, polls in events:
        if polls:
            seen.append(cursor.poll(limit).to_pandas())
        files = list_files(run, "scalars")
        group = files[first : first + count]
        if len(group) > 1:
            write_segment(folder, group)
    while len(rows := cursor.poll(limit)):
        seen.append(rows.to_pandas())
    found = pd.concat(seen, ignore_index=True)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert not cursor.problems


def test_a_cursor_in_the_middle_of_a_journal_goes_on_in_the_segment(
    tmp_path: Path,
) -> None:
    from dynoscope.recorder.journal import TableWriter

    writer, cursor = TableWriter(tmp_path, "scalars"), Cursor(tmp_path, "scalars")
    writer.append(table_rows("scalars", [0, 1]))
    assert len(cursor.poll()) == 6
    writer.append(table_rows("scalars", [2]))
    writer.flush()
    writer.append(table_rows("scalars", [3]))
    writer.flush()
    seal(tmp_path / "scalars")
    assert cursor.poll()["step"].to_pylist() == [2] * 3 + [3] * 3
    cursor.skip()
    writer.append(table_rows("scalars", [4, 5]))
    cursor.skip()
    writer.append(table_rows("scalars", [6]))
    writer.flush()
    seal(tmp_path / "scalars", 1)
    assert cursor.poll(limit=1)["step"].to_pylist() == [6] * 3


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ends the process, as it were, at the n-th operation on files."""
    left = [1 << 30]

    def dying(name: str, work: object) -> object:
        def operation(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Killed(name)
            return work(*args, **kwargs)  # type: ignore[operator]

        return operation

    for owner, name in (
        (pq.ParquetWriter, "write_table"),
        (pq.ParquetWriter, "close"),
        (os, "fsync"),
        (Path, "replace"),
        (Path, "unlink"),
    ):
        monkeypatch.setattr(owner, name, dying(name, getattr(owner, name)))
    return left


def test_killed_at_any_operation_no_row_is_lost_or_doubled(
    tmp_path: Path, deadly: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coarse, "WORTH", 1)  # with levels, too
    monkeypatch.setattr(coarse, "LEAST", 1)
    steps = [range(150), range(150, 300), range(300, 400)]
    deaths = 0
    while True:
        run = tmp_path / f"run{deaths}"
        run.mkdir()
        deadly[0] = 1 << 30
        write(run, "normalization", steps, open_=False)
        seal(run / "normalization", 0, 2)
        before = content(run, "normalization")
        deadly[0] = deaths + 1
        try:
            seal(run / "normalization")
            break
        except Killed:
            deaths += 1
        deadly[0] = 1 << 30
        after = content(run, "normalization")
        pd.testing.assert_frame_equal(after, before, check_exact=True)
        seal(run / "normalization")  # the next one finishes it, or does it again
        after = content(run, "normalization")
        pd.testing.assert_frame_equal(after, before, check_exact=True)
        left = sorted(path.relative_to(run).as_posix() for path in run.glob("*/*"))
        assert left == [
            "levels/normalization-00000000-00000002.parquet",
            "normalization/segment-00000000-00000002.parquet",
        ]
    assert deaths >= 10


def test_what_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path, "scalars", [[0], [1], [2]], open_=False)
    folder = tmp_path / "scalars"
    (folder / "part-00000001.parquet").write_bytes(b"PAR1 nothing PAR1")
    names = sorted(path.name for path in folder.iterdir())
    with pytest.raises(DamagedError, match="part-00000001") as caught:
        seal(folder)
    assert caught.value.file.number == 1
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_full_disk_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "scalars", [[0], [1]], open_=False)
    folder = tmp_path / "scalars"
    before = content(tmp_path, "scalars")
    names = sorted(path.name for path in folder.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        seal(folder)
    assert sorted(path.name for path in folder.iterdir()) == names
    pd.testing.assert_frame_equal(content(tmp_path, "scalars"), before)


def test_it_can_be_cancelled(tmp_path: Path) -> None:
    write(tmp_path, "layers", [[0], [1]], open_=False)
    folder = tmp_path / "layers"
    names = sorted(path.name for path in folder.iterdir())
    for after in range(0, 36, 3):
        left = [after]

        def check(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise CancelledError

        with pytest.raises(CancelledError):
            write_segment(folder, list_files(tmp_path, "layers"), check)
        assert sorted(path.name for path in folder.iterdir()) == names


def test_long_layers_are_cut_and_short_ones_kept_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "GROUP_ROWS", 100)
    write(tmp_path, "neurons", [range(260), range(260, 320)], open_=False)
    before = content(tmp_path, "neurons")
    seal(tmp_path / "neurons")
    pd.testing.assert_frame_equal(content(tmp_path, "neurons"), before)
    (path,) = (tmp_path / "neurons").glob("segment*")
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [80] * 12
    monkeypatch.setattr(segment, "GROUP_ROWS", 700)
    seal(tmp_path / "neurons")
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [640, 320]


@pytest.mark.parametrize("stop", [0, 3, 6, 99])
def test_a_segment_can_be_cut(stop: int, tmp_path: Path) -> None:
    write(tmp_path, "layers", [range(4), range(4, 8)], open_=False)
    seal(tmp_path / "layers")
    before = content(tmp_path, "layers")
    cursor = Cursor(tmp_path, "layers")
    (file,) = list_files(tmp_path, "layers")
    cut_segment(tmp_path / "layers", file, stop)
    kept = before[before["step"] < stop].reset_index(drop=True)
    pd.testing.assert_frame_equal(content(tmp_path, "layers"), kept, check_exact=True)
    # Merged again with what comes after, for cursors that have read it and others.
    write(tmp_path, "layers", [[20], [21]], open_=False)
    seen = cursor.poll(limit=1)["step"].to_pylist()
    assert seen == (kept["step"].tolist()[:12] or [20] * 3)
    seal(tmp_path / "layers")
    seen += cursor.poll()["step"].to_pylist()
    assert seen == [*kept["step"], *[20] * 3, *[21] * 3]


def test_a_folder_is_read_by_others_as_it_is(tmp_path: Path) -> None:
    """By what knows Parquet and nothing of dynoscope."""
    write(tmp_path, "normalization", [range(9), range(9, 12), [12]], open_=False)
    before = content(tmp_path, "normalization")
    seal(tmp_path / "normalization", 0, 2)
    found = pd.read_parquet(tmp_path / "normalization")[before.columns.tolist()]
    keys = ["layer", "step"]
    pd.testing.assert_frame_equal(
        found.sort_values(keys, ignore_index=True),
        before.sort_values(keys, ignore_index=True),
    )
