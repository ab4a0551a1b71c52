"""Rows wait where the disk fails, and are written, once and in order, when it works."""

import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from dynoscope.measurement import Layer, OptimizerInfo, Subject
from dynoscope.reader.files import read_table
from dynoscope.recorder import disk
from dynoscope.recorder.disk import Disk
from dynoscope.recorder.manifest import Manifest
from dynoscope.recorder.tables import scalar_columns
from tests.recorder.test_stream import files_end_at

SUBJECT = Subject(
    model="Linear",
    layers=(Layer("weight", (2, 2), "float32", "Linear", 0, 2),),
    normalization=(),
    optimizer=OptimizerInfo("SGD", (None,), ("",), False, ({},)),
)


class Notes:
    def __init__(self) -> None:
        self.problems: list[str] = []
        self.errors: list[BaseException | None] = []

    def __call__(self, problem: str, error: BaseException | None = None) -> None:
        self.problems.append(problem)
        self.errors.append(error)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(disk, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(disk, "GRACE", 0.0)


def begin(run: Path) -> tuple[Disk, Manifest, Notes]:
    run.mkdir()
    manifest = Manifest.create(run, SUBJECT, {})
    manifest.write()
    notes = Notes()
    return Disk(run, manifest, notes), manifest, notes


def add(target: Disk, *steps: int) -> None:
    rows = [(step, 0.5, "loss", step / 2) for step in steps]
    target.add({"scalars": scalar_columns(rows)})


def steps_in(run: Path) -> list[int]:
    table, problems = read_table(run, "scalars")
    assert not problems
    steps: list[int] = table["step"].to_pylist()
    return steps


def test_rows_wait_for_a_full_disk(tmp_path: Path) -> None:
    run = tmp_path / "run"
    target, manifest, notes = begin(run)
    add(target, 0)
    target.write()
    with files_end_at(100):
        for step in range(1, 8):
            add(target, step)
            target.write()
        assert steps_in(run) == [0]
        assert target.nbytes > 0
    target.write()
    assert target.nbytes == 0
    assert steps_in(run) == list(range(8))
    target.finish()
    target.close()
    assert steps_in(run) == list(range(8))
    assert manifest.content["progress"]["lost_rows"] == 0
    assert {type(error) for error in notes.errors} == {OSError}
    assert all("rows wait in memory" in problem for problem in notes.problems)


def test_rows_that_can_never_be_written_are_counted(tmp_path: Path) -> None:
    target, manifest, notes = begin(tmp_path / "run")
    with files_end_at(100):
        add(target, 0, 1)
        target.write()
        add(target, 2)
        target.finish()
    target.close()
    assert target.nbytes == 0
    assert manifest.content["progress"]["lost_rows"] == 3
    assert notes.problems[-1] == "0 measured steps and 3 other rows are lost"


def test_a_failing_disk_is_tried_less_and_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(disk, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(disk, "LONGEST_PAUSE", 30.0)
    target, _, notes = begin(tmp_path / "run")
    target._pause = 0.5
    tries: list[float] = []
    with files_end_at(100):
        add(target, 0)
        for _ in range(800):
            said = len(notes.problems)
            target.write()
            if len(notes.problems) > said:
                tries.append(now[0])
            now[0] += 0.25
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert set(gaps[6:]) == {30.0}
    target.write(at_once=True)
    assert steps_in(tmp_path / "run") == [0]
    target.close()


def test_a_deleted_folder_is_made_anew(tmp_path: Path) -> None:
    run = tmp_path / "a" / "run"
    (tmp_path / "a").mkdir()
    target, _, notes = begin(run)
    add(target, 0, 1)
    target.write()
    shutil.rmtree(tmp_path / "a")
    add(target, 2)
    target.write()
    assert steps_in(run) == [2]
    assert json.loads((run / "run.json").read_text())["revision"] == 1
    (problem,) = notes.problems
    assert problem == f"{run}: scalars, run.json deleted; begun anew"
    target.finish()
    shutil.rmtree(run)  # with no journal open
    add(target, 3)
    target.finish()
    assert steps_in(run) == [3]
    target.close()


def test_a_folder_that_is_being_deleted_is_left_until_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "GRACE", 1.0)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = tmp_path / "run"
    target, _, _ = begin(run)
    shutil.rmtree(run)
    for _ in range(4):
        now[0] += 0.3
        add(target, 0)
        target.write()
        target.beat()
        assert not run.exists()
    now[0] += 0.3
    target.write()
    assert steps_in(run) == [0] * 4
    target.close()


def test_a_deleted_manifest_is_written_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    target, _, notes = begin(run)
    add(target, 0)
    target.write()
    (run / "run.json").unlink()
    target.beat()
    assert json.loads((run / "run.json").read_text())["revision"] == 0
    add(target, 1)
    target.write()
    assert steps_in(run) == [0, 1]
    assert len(notes.problems) == 1
    target.close()


def test_a_manifest_that_was_edited_is_ours_all_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    target, manifest, notes = begin(run)
    manifest.content["config"] = {"lr": 1}
    content = json.loads((run / "run.json").read_text())
    for text in (json.dumps({**content, "note": "mine"}), "{half", "[]"):
        (run / "run.json").write_text(text)
        target.beat()
        assert json.loads((run / "run.json").read_text())["config"] == {"lr": 1}
    assert not notes.problems


def test_another_run_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    target, manifest, notes = begin(run)
    add(target, 0)
    target.write()
    shutil.rmtree(run)
    other, _, _ = begin(run)
    add(other, 10)
    other.write()
    content: dict[str, Any] = json.loads((run / "run.json").read_text())
    add(target, 1)
    target.write()
    target.beat()
    add(target, 2)
    target.finish()
    assert target.is_off
    assert target.nbytes == 0
    assert manifest.content["progress"]["lost_rows"] == 2
    assert json.loads((run / "run.json").read_text()) == content
    assert steps_in(run) == [10]
    assert notes.problems == [f"{run} holds another run by now; recording is off"]
    target.close()
    other.close()
