"""A run that is interrupted and resumed reads like one that never was."""

import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dynoscope
from dynoscope.schema import TABLES
from tests.resume.training import SAVED, STEPS, Training, watched

ROOT = Path(__file__).parents[1]
CRASHED = 45

EFFECTIVE = ("effective_weight_decay", "pred_effective_")
"""Columns that are differences: rounding to float32 shows tenfold there."""


def assert_same_rows(
    whole: dynoscope.Run, part: dynoscope.Run, first: int = 0, stop: int = STEPS
) -> None:
    """Rows of some steps: what was measured to the last bit, predictions nearly."""
    for table in ("layers", "neurons", "groups", "normalization"):
        expected = whole.table(table).to_pandas()
        expected = expected[(expected["step"] >= first) & (expected["step"] < stop)]
        found = part.table(table).to_pandas()
        assert found[["step"]].equals(expected[["step"]].reset_index(drop=True))
        for column in TABLES[table].columns:
            a, b = found[column.name].to_numpy(), expected[column.name].to_numpy()
            if column.name.startswith(EFFECTIVE):
                np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=column.name)
            elif column.role == "predicted":
                np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=column.name)
            elif column.name != "wall_time":
                np.testing.assert_array_equal(a, b, err_msg=column.name)
    frame = part.layers()
    assert not frame.duplicated(["step", "layer"]).any()


def findings_of(run: dynoscope.Run) -> list[tuple[Any, ...]]:
    found = run.findings()[["step", "rule", "layer"]]
    return sorted(found.itertuples(index=False, name=None))


def crash(training: Training, run: Path, *, saved: int, crashed: int) -> bytes:
    """Train under watch until it crashes; give a checkpoint from before."""
    checkpoint = b""

    def each() -> None:
        nonlocal checkpoint
        if training.step == saved:
            checkpoint = training.save()
        if training.step == crashed:
            raise MemoryError("out of it")

    with pytest.raises(MemoryError), watched(training, run) as scope:
        training.run(crashed + 1, scope, each)
    return checkpoint


@pytest.mark.parametrize("name", ["adamw", "lion", "sgdm"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    name: str, tmp_path: Path
) -> None:
    training = Training(name)
    with watched(training, tmp_path / "whole") as scope:
        training.run(STEPS, scope)
    checkpoint = crash(Training(name), tmp_path / "run", saved=SAVED, crashed=CRASHED)
    training = Training.load(name, checkpoint)
    counts = name == "adamw"
    options = {} if counts else {"start_step": training.step}
    with watched(training, tmp_path / "run", resume=True, **options) as scope:
        assert scope.step == SAVED
        assert scope.state_dict() == {"step": SAVED}
        training.run(STEPS, scope)
    whole, run = (dynoscope.open_run(tmp_path / n) for n in ("whole", "run"))
    assert_same_rows(whole, run)
    assert run.normalization("dead", "stem.1.bias")["dead"].iloc[-1] == 1
    assert run.scalars("loss")["value"].equals(whole.scalars("loss")["value"])
    assert findings_of(run) == findings_of(whole)
    assert not run.table("findings").to_pandas().duplicated(["rule", "layer"]).any()
    (branch,) = run.branches
    assert_same_rows(whole, branch, SAVED, CRASHED)
    assert branch.status == "superseded"
    assert branch.exception == "MemoryError: out of it"
    assert branch.manifest["superseded"]["to"] == CRASHED - 1
    assert run.status == "finished"
    assert run.exception is None
    assert run.problems == []
    progress = run.manifest["progress"]
    assert (progress["measured"], progress["step"]) == (STEPS, STEPS - 1)


def test_killed_and_resumed_from_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tests.resume.training", str(tmp_path)],
            cwd=ROOT,
        ) as victim,
        warnings.catch_warnings(),
    ):
        # A journal may end in half a batch: that is said, and tested elsewhere.
        warnings.simplefilter("ignore", dynoscope.DynoscopeWarning)
        while not folder.exists() or recorded_by(folder) <= SAVED:
            assert victim.poll() is None
            time.sleep(0.05)
        victim.kill()
        victim.wait()
        last = recorded_by(folder)
        training = Training.load("adamw", (tmp_path / "checkpoint").read_bytes())
        with watched(training, folder, resume=True) as scope:
            assert scope.step == SAVED
            training.run(STEPS, scope)
    training = Training("adamw")
    with watched(training, tmp_path / "whole") as scope:
        training.run(STEPS, scope)
    run = dynoscope.open_run(folder)
    assert_same_rows(dynoscope.open_run(tmp_path / "whole"), run)
    assert run.branches[0].layers()["step"].unique().tolist() == [
        *range(SAVED, last + 1)
    ]


def recorded_by(folder: Path) -> int:
    """Last step of a run so far, -1 before the first."""
    try:
        last = dynoscope.open_run(folder).last_step
    except dynoscope.RunNotFoundError:
        return -1  # its manifest is about to come
    return -1 if last is None else last


def test_several_optimizers_go_on_by_their_own_steps(tmp_path: Path) -> None:
    def several() -> tuple[list[torch.nn.Module], list[torch.optim.Optimizer]]:
        torch.manual_seed(1)
        models: list[torch.nn.Module] = [torch.nn.Linear(6, 4), torch.nn.Linear(4, 6)]
        return models, [
            torch.optim.AdamW(models[0].parameters(), lr=1e-2),
            torch.optim.SGD(models[1].parameters(), lr=1e-2, momentum=0.9),
        ]

    def rounds(
        models: list[torch.nn.Module],
        optimizers: list[torch.optim.Optimizer],
        first: int,
        stop: int,
    ) -> None:
        for at in range(first, stop):
            torch.manual_seed(at)
            inputs = torch.randn(8, 6)
            ((models[1](models[0](inputs)) - inputs) ** 2).mean().backward()
            for k, optimizer in enumerate(optimizers):
                if k == 0 or at % 3 == 0:
                    optimizer.step()
                    optimizer.zero_grad()

    models, optimizers = several()
    options: dict[str, Any] = {"quiet": True, "strict": True}
    with dynoscope.watch(models, optimizers, run=tmp_path / "whole", **options):
        rounds(models, optimizers, 0, 40)
    models, optimizers = several()
    with dynoscope.watch(models, optimizers, run=tmp_path / "run", **options):
        rounds(models, optimizers, 0, 20)
    with dynoscope.watch(
        models, optimizers, run=tmp_path / "run", resume=True, **options
    ) as scope:
        assert scope.step == 20
        rounds(models, optimizers, 20, 40)
    whole, run = (dynoscope.open_run(tmp_path / n) for n in ("whole", "run"))
    key = ["step", "layer"]
    for a, b in ((whole.layers(), run.layers()), (whole.groups(), run.groups())):
        key = [c for c in ("step", "layer", "group") if c in a]
        a, b = (frame.sort_values(key, ignore_index=True) for frame in (a, b))
        columns = [c for c in a.columns if c != "wall_time"]
        pd.testing.assert_frame_equal(a[columns], b[columns], rtol=1e-5)
    assert run.groups()["own_step"].max() == 39
    assert run.problems == []
