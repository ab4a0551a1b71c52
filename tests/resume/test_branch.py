"""Superseded rows: in the tables or in a branch, never both, whatever happens."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynoscope import DynoscopeWarning, Run, open_run
from dynoscope.reader import Cursor
from dynoscope.reader.files import list_files
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.tables import scalar_columns
from dynoscope.resume.branch import branch_off, tidy
from dynoscope.schema.folder import BRANCHES, CUT
from dynoscope.sealing import compact
from dynoscope.sealing.segment import write_segment
from tests.dashboard.runs import WrittenRun

RECORDED = ("layers", "neurons", "groups", "scalars")
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["parts", "segment"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """30 steps: parts of 0-9 and 10-19 and a journal of 20-29; a number out of turn.

    The parts may have become a segment.
    """
    run = WrittenRun(tmp_path / "run", norm=False)
    for flush in (True, True, False):
        for _ in range(5):
            run.write(2)
        if flush:
            run.flush()
    run.close()
    writer = TableWriter(run.path, "scalars")
    for step in (3, 28, 4):
        writer.append(scalar_columns([(step, 0.5, "late", step / 2)]))
    writer.flush()
    run.manifest.content.update(status="failed", exception="ValueError: no")
    run.manifest.write()
    if request.param == "segment":
        for table in RECORDED:
            write_segment(run.path / table, list_files(run.path, table)[:2])
    return run.path


def rows_of(run: Run) -> dict[str, pd.DataFrame]:
    return {name: run.table(name).to_pandas() for name in RECORDED}


def assert_split(before: dict[str, pd.DataFrame], run: Run, step: int) -> None:
    """All rows from the step on are in the last branch, the others in the run."""
    main, branch = rows_of(run), rows_of(run.branches[-1])
    for name, rows in before.items():
        of_main = rows[rows["step"] < step].reset_index(drop=True)
        of_branch = rows[rows["step"] >= step].reset_index(drop=True)
        pd.testing.assert_frame_equal(main[name], of_main, check_dtype=False)
        pd.testing.assert_frame_equal(branch[name], of_branch, check_dtype=False)


def test_rows_from_a_step_on_move(folder: Path) -> None:
    before = rows_of(open_run(folder))
    assert branch_off(folder, 17) == "001"
    run = open_run(folder)
    assert_split(before, run, 17)
    (branch,) = run.branches
    assert branch.path == folder / "branches" / "001"
    assert branch.status == "superseded"
    assert branch.exception == "ValueError: no"
    assert branch.layer_names == run.layer_names
    assert branch.last_step == 29
    superseded = branch.manifest["superseded"]
    assert (superseded["from"], superseded["to"]) == (17, 29)
    assert branch.manifest["progress"]["measured"] == 13
    assert not list(folder.rglob("*.tmp"))
    assert not list(folder.rglob(CUT))


def test_a_second_branch_leaves_the_first_alone(folder: Path) -> None:
    branch_off(folder, 20)
    first = rows_of(open_run(folder).branches[0])
    before = rows_of(open_run(folder))
    assert branch_off(folder, 5) == "002"
    run = open_run(folder)
    assert_split(before, run, 5)
    for name, rows in rows_of(run.branches[0]).items():
        pd.testing.assert_frame_equal(rows, first[name])


def test_nothing_to_move_makes_no_branch(folder: Path) -> None:
    content = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert branch_off(folder, 30) is None
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == content
    assert open_run(folder).branches == []


def test_all_rows_can_move(folder: Path) -> None:
    before = rows_of(open_run(folder))
    branch_off(folder, 0)
    assert_split(before, open_run(folder), 0)
    assert open_run(folder).last_step is None


def test_numbers_of_files_are_not_given_again(folder: Path) -> None:
    branch_off(folder, 8)
    writer = TableWriter(folder, "layers")
    assert writer._number == 3


def test_files_that_keep_their_rows_are_not_written_anew(folder: Path) -> None:
    first = list_files(folder, "layers")[0]
    stamp = (folder / "layers" / first.name).stat()
    branch_off(folder, 20 if first.is_segment else 10)
    assert (folder / "layers" / first.name).stat() == stamp


def test_damage_is_passed_on(folder: Path) -> None:
    journal = folder / "layers" / "journal-00000002.arrow"
    with journal.open("ab") as file:
        file.truncate(file.tell() - 40)  # its last batch: the rows of step 29
    with pytest.warns(DynoscopeWarning, match="damaged"):
        rows = open_run(folder).table("layers").to_pandas()
    branch_off(folder, 25)
    run = open_run(folder)
    both = [
        run.table("layers").to_pandas(),
        run.branches[0].table("layers").to_pandas(),
    ]
    pd.testing.assert_frame_equal(pd.concat(both, ignore_index=True), rows)
    assert "journal-00000002.arrow: damaged" in run.branches[0].problems[0]


def test_a_cursor_from_before_gives_nothing_more(folder: Path) -> None:
    old = Cursor(folder, "layers")
    assert len(old.poll(1)) == 30
    branch_off(folder, 17)
    assert len(old.poll()) == 0
    assert Cursor(folder, "layers").poll()["step"].to_pylist() == [
        *np.repeat(np.arange(17), 3)
    ]


@pytest.fixture
def killed(folder: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """Copies of the run, each left by a move that was killed one change later."""
    for table in ("neurons", "groups"):  # two tables have it all
        shutil.rmtree(folder / table)
    copies = tmp_path / "copies"
    subprocess.run(
        [sys.executable, "-m", "tests.resume.killed", str(folder), "17", str(copies)],
        cwd=ROOT,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    yield sorted(copies.iterdir())
    shutil.rmtree(copies)


def test_killed_at_any_change_nothing_is_lost_nor_doubled(
    folder: Path, killed: list[Path]
) -> None:
    before = rows_of(open_run(folder))
    seen = {"before": 0, "moving": 0, "after": 0}
    for copy in killed:
        run = open_run(copy)
        if not run.branches:
            seen["before"] += 1
            for name, rows in rows_of(run).items():
                pd.testing.assert_frame_equal(rows, before[name])
            assert branch_off(copy, 17) == "001"
        else:
            moving = (copy / BRANCHES / "001" / CUT).exists()
            seen["moving" if moving else "after"] += 1
            assert_split(before, run, 17)
            polled = Cursor(copy, "layers").poll().to_pandas()
            pd.testing.assert_frame_equal(polled, run.table("layers").to_pandas())
            tidy(copy)
        assert_split(before, open_run(copy), 17)
        assert not list(copy.rglob("*.tmp"))
        assert not list(copy.rglob(CUT))
        assert len(list((copy / BRANCHES).iterdir())) == 1
    assert min(seen.values()) > 0, seen


def test_killed_at_any_change_and_compacted_nothing_is_lost_nor_doubled(
    folder: Path, killed: list[Path]
) -> None:
    before = rows_of(open_run(folder))
    for copy in killed:
        moved = open_run(copy).branches
        assert compact(copy).problems == []
        if moved:
            assert_split(before, open_run(copy), 17)
            tidy(copy)
        else:
            assert branch_off(copy, 17) == "001"
        assert_split(before, open_run(copy), 17)
        assert not list(copy.rglob(CUT))
