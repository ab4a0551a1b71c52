"""The whole suite runs, on small trainings, and leaves what the README is made of."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import present
from tests.benchmarks.bars import BARS
from tests.benchmarks.figures import load
from tests.benchmarks.table import README

ROOT = README.parent
OTHERS = ("wandb.watch", "TensorBoard")


@pytest.mark.slow
def test_every_part_leaves_its_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--threads", "1"]
    before = README.read_bytes()
    done = subprocess.run(
        [*command, "--results", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert README.read_bytes() == before
    assert "a smoke test" in done.stdout
    assert all(load(tmp_path, part) for part in present())
    for bar in BARS:
        is_other = any(name in bar.case for name in OTHERS)  # may not be installed
        figure = bar.find(load(tmp_path, bar.part))
        assert is_other or figure is not None, bar
    for name in ("overhead.svg", "growth.svg"):
        assert "currentColor" in (tmp_path / name).read_text()
    rounds = (tmp_path / "overhead_gpt_rounds.csv").read_text().splitlines()
    assert rounds[0] == (
        "arm,round,step,measured,counted,"
        "on_wall,on_cpu,on_beside,on_optimizer,"
        "off_wall,off_cpu,off_beside,off_optimizer"
    )
    assert len(rounds) > 4 * 9
