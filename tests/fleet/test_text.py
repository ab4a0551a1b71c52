"""Many runs on the terminal, and the command."""

import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from dynoscope import open_fleet
from dynoscope.errors import DynoscopeError
from dynoscope.fleet.text import print_fleet, sorted_by
from tests.fleet.runs import BROKEN, names_in, write_run

ROOT = Path(__file__).parents[2]


def printed(frame: pd.DataFrame, metric: str | None = None, width: int = 80) -> str:
    out = io.StringIO()
    print_fleet(frame, metric, Console(file=out, width=width))
    return out.getvalue()


def fleet(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dynoscope", "fleet", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def frame(few: Path) -> pd.DataFrame:
    return open_fleet(few).summaries()


def test_a_line_for_each_run_at_80_columns(frame: pd.DataFrame) -> None:
    lines = printed(frame).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == [
        "run", "status", "steps", "loss", "mrad", "of", "pred.", "dead", "odd",
    ]  # fmt: skip
    starts = [line.split()[:2] for line in lines[2 : 2 + len(frame)]]
    assert starts == frame[["run", "status"]].to_numpy().tolist()
    assert "12 runs: 8 finished, 2 unreadable, 1 failed, 1 lost" in lines
    below = "\n".join(lines[3 + len(frame) :])
    for name in (*BROKEN, "special/lost", "special/damaged"):
        assert f"{name}: " in below


def test_numbers_are_those_of_the_frame(frame: pd.DataFrame) -> None:
    row = frame.set_index("run").loc["special/failed"]
    (line,) = (x for x in printed(frame).splitlines() if x.startswith("special/failed"))
    cells = line.split()
    assert cells[2:5] == [
        str(row["step"] + 1),
        f"{row['last.loss']:.4g}",
        f"{1e3 * row['angular_update']:.4g}",
    ]
    assert cells[5] == f"{row['rotation_share']:.0%}"


def test_long_names_lose_their_beginning(frame: pd.DataFrame) -> None:
    long = frame.assign(run=["a/very/long/path/to/the/run/" + r for r in frame["run"]])
    assert "…" in printed(long)
    assert max(map(len, printed(long).splitlines()[: len(frame) + 2])) <= 80
    assert "…" not in printed(long, width=140)


def test_another_number_and_another_order(frame: pd.DataFrame) -> None:
    assert printed(frame, "accuracy").split()[3] == "accuracy"
    with pytest.raises(DynoscopeError, match=r"as 'los'.* there is: .*loss"):
        printed(frame, "los")
    bare = frame.drop(columns=[c for c in frame if str(c).startswith("last.")])
    assert "loss" not in printed(bare).splitlines()[0]
    losses = sorted_by(frame, "last.loss")["last.loss"].dropna().tolist()
    assert losses == sorted(losses)
    turned = sorted_by(frame, "-last.loss")["last.loss"].dropna().tolist()
    assert turned == sorted(losses, reverse=True)
    with pytest.raises(
        DynoscopeError, match="no column 'loss'; there are: run, status"
    ):
        sorted_by(frame, "loss")


def test_the_command(few: Path, tmp_path: Path) -> None:
    csv = tmp_path / "runs.csv"
    done = fleet(str(few), "--csv", str(csv), "--sort", "-step")
    assert done.returncode == 0, done.stderr
    assert "12 runs:" in done.stdout
    assert sorted(pd.read_csv(csv)["run"]) == names_in(few)
    wrong = fleet(str(tmp_path / "nothing"))
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("dynoscope: no run in ")


def test_the_command_on_a_cluster(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 1, steps=2)
    done = fleet(str(tmp_path), "--cluster", "1")
    assert done.returncode == 0, done.stderr
    assert "1 run: 1 finished" in done.stdout
