"""However a program ends, nothing hangs, and its run says how it ended."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import dynoscope

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "tests.leaver", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=180)
    return folder


def opened(path: Path) -> dynoscope.Run:
    with warnings.catch_warnings():
        # A lost run's journal may end in half a batch.
        warnings.simplefilter("ignore", dynoscope.DynoscopeWarning)
        run = dynoscope.open_run(path)
        steps = run.layers()["step"].unique().tolist()
        assert steps == list(range(len(steps)))
        if run.status != "lost":
            assert len(steps) == run.manifest["progress"]["measured"] >= 3
    return run


def test_sigterm_leaves_a_readable_run(runs: Path) -> None:
    assert opened(runs / "terminated").status == "lost"


@pytest.mark.parametrize(
    ("way", "exception"),
    [
        ("handled", "SystemExit: 143"),
        ("interrupted", "KeyboardInterrupt: "),
        ("exit with an error", "SystemExit: no more data"),
    ],
)
def test_what_ends_a_training_is_recorded(way: str, exception: str, runs: Path) -> None:
    run = opened(runs / way)
    assert run.status == "failed"
    assert run.exception == exception


@pytest.mark.parametrize("way", ["exit", "exit in a thread"])
def test_a_clean_exit_finishes_the_run(way: str, runs: Path) -> None:
    run = opened(runs / way)
    assert run.status == "finished"
    assert run.exception is None
    assert run.problems == []


@pytest.mark.parametrize("way", ["never left", "in a thread"])
def test_a_program_that_ends_inside_the_block_ends_the_run(
    way: str, runs: Path
) -> None:
    run = opened(runs / way)
    assert run.status == "finished"
    assert run.problems == ["the program ended inside the watch block"]


def test_an_exit_without_cleaning_up_loses_the_last_second_at_most(
    runs: Path,
) -> None:
    run = opened(runs / "at once")
    assert run.status == "lost"
    assert run.last_step == 2
