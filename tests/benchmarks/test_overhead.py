"""What one task's measurement leaves of the other's, and what others add."""

from pathlib import Path

import pytest

from tests.benchmarks.figures import Figure, keep, once
from tests.benchmarks.options import Options
from tests.benchmarks.overhead import known, less_added


def _options(results: Path, *, quick: bool = False) -> Options:
    return Options(results=results, quick=quick, threads=2, began=0.0, load=0.25)


def test_figures_of_the_other_task_stay(tmp_path: Path) -> None:
    figures = [once("gpt, bare", "step", 500.0, "ms"), once("conv, bare", "step", 30.0)]
    keep("overhead", figures, _options(tmp_path))
    assert known("overhead", "gpt", _options(tmp_path)) == figures[:1]
    assert known("overhead", "gpt", _options(tmp_path, quick=True)) == []
    assert known("budget", "gpt", _options(tmp_path)) == []


def test_others_are_held_against_an_arm_with_the_errors_of_both() -> None:
    ours = Figure("gpt, x", "wall ratio", 1.05, 0.9, 1.2, 30, "", 0.01)
    theirs = Figure("gpt, wandb.watch", "wall ratio", 2.0, 1.8, 2.2, 6, "", 0.1)
    (found,) = less_added("gpt", "x", [ours, theirs])
    assert found.case == theirs.case
    assert found.value == pytest.approx(20)
    assert found.low == pytest.approx(0.9 / 0.06)
    assert found.high == pytest.approx(1.1 / 0.04)
