"""`dynoscope demo` and the command line, as a newcomer runs them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import dynoscope

DYNOSCOPE = [sys.executable, "-m", "dynoscope"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    runs = tmp_path_factory.mktemp("demo") / "runs"
    started = time.monotonic()
    done = subprocess.run(
        [*DYNOSCOPE, "demo", "--runs", str(runs), "--port", "0", "--no-serve",
         "--no-browser"],
        capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert time.monotonic() - started < 300  # 90 s on two cores that are free
    return runs, done.stdout


def test_the_demo_sums_up_in_words(demo: tuple[Path, str]) -> None:
    _, said = demo
    for words in (
        "AdamW ended at loss",
        "Lion ended at loss",
        "predicted in equilibrium",
        "BatchNorm channels",
        "common steps",
    ):
        assert words in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_demo_trains_for_real(demo: tuple[Path, str]) -> None:
    runs, _ = demo
    for name in ("adamw", "lion"):
        run = dynoscope.open_run(runs / name)
        assert run.status == "finished"
        assert run.problems == []
        scalars = run.scalars().groupby("name")["value"]
        assert scalars.get_group("accuracy").iloc[-1] > 0.9
        plateau = run.layers(
            ["angular_update", "pred_angular_update"], "features.7.weight", (1000, 1700)
        )
        ratio = plateau["angular_update"].mean() / plateau["pred_angular_update"].mean()
        assert 0.6 < ratio < 1.4


def test_the_demo_finds_what_is_odd_with_lion_only(demo: tuple[Path, str]) -> None:
    runs, _ = demo
    adamw, lion = (dynoscope.open_run(runs / n).findings() for n in ("adamw", "lion"))
    assert set(adamw["severity"]) == {"note"}
    assert "dying_normalization" in set(lion["rule"])


def test_diff_prints_json(demo: tuple[Path, str]) -> None:
    runs, _ = demo
    done = subprocess.run(
        [*DYNOSCOPE, "diff", str(runs / "adamw"), str(runs / "lion"), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)


@pytest.mark.parametrize("command", ["diff a b", "dash /dev/null"])
def test_errors_are_one_line(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*DYNOSCOPE, *command.split()],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("dynoscope: ")
    assert done.stderr.count("\n") == 1


def test_the_version_is_said() -> None:
    done = subprocess.run(
        [*DYNOSCOPE, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"dynoscope {dynoscope.__version__}\n"


def test_dash_serves_until_ctrl_c(demo: tuple[Path, str]) -> None:
    runs, _ = demo
    with subprocess.Popen(
        [*DYNOSCOPE, "dash", str(runs), "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = next(
            word for word in line.split() if word.startswith("http://127.0.0.1:")
        )
        with urllib.request.urlopen(url, timeout=30) as page:
            assert b"dynoscope" in page.read()
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=20) == 0
