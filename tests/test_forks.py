"""A forked child neither records, nor says, nor ends anything."""

import subprocess
import sys
from pathlib import Path

import pytest

import dynoscope

ROOT = Path(__file__).parents[1]

Result = tuple[Path, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, "-m", "tests.forker", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def test_children_that_train_and_leave_the_block_change_nothing(forked: Result) -> None:
    run = dynoscope.open_run(forked[0] / "plain")
    assert run.status == "finished"
    assert run.exception is None
    assert run.problems == []
    assert run.layers(layer="weight")["step"].tolist() == [0, 1]
    assert run.manifest["progress"]["measured"] == 2
    assert run.scalars("loss").empty
    assert run.full_gradients().empty


def test_a_child_may_watch_for_itself(forked: Result) -> None:
    run = dynoscope.open_run(forked[0] / "plain-child")
    assert run.status == "finished"
    assert run.layers(layer="weight")["step"].tolist() == [0]


def test_workers_of_a_loader_and_processes_change_nothing(forked: Result) -> None:
    run = dynoscope.open_run(forked[0] / "loader")
    assert run.status == "finished"
    assert run.problems == []
    assert run.layers(layer="weight")["step"].tolist() == list(range(5))
    assert run.scalars("loss")["step"].tolist() == list(range(4))


def test_what_is_said_is_said_once(forked: Result) -> None:
    said = forked[1].stdout.splitlines()
    assert sum("steps measured" in line for line in said) == 3
    findings = [line for line in said if line.startswith("finding")]
    assert len(findings) == len(set(findings))
    assert "dynoscope:" not in forked[1].stderr
