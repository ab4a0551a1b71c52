"""SIGKILL at random moments: the run opens, and all but the last second is there."""

import random
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dynoscope
from tests.networks import OPTIMIZERS, MixedNet, train

KILLS = 20
ROOT = Path(__file__).parents[2]


def train_and_kill(folder: Path, seconds: float) -> dict[int, float]:
    """Let a training run for some time after its first step; kill it.

    Returns:
        When each step was done, by the training's own account.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.recorder.victim", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as victim:
        assert victim.stdout is not None
        lines = [victim.stdout.readline()]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            lines.append(victim.stdout.readline())
        victim.kill()
        lines += victim.stdout.readlines()
    complete = [line.split() for line in lines if line.endswith("\n")]
    return {int(step): float(when) for step, when in complete}


def check(folder: Path, done: dict[int, float]) -> int:
    """Hold what was recorded against what was done; give the steps lost."""
    run = dynoscope.open_run(folder)
    assert run.status == "lost"
    with warnings.catch_warnings():
        # A journal may end in half a batch: that is said, and tested elsewhere.
        warnings.simplefilter("ignore", dynoscope.DynoscopeWarning)
        frame, neurons = run.layers(), run.neurons()
    assert not frame.duplicated(["step", "layer"]).any()
    assert not neurons.duplicated(["step", "layer"]).any()
    recorded = frame.groupby("step")["layer"].nunique()
    assert (recorded == len(run.layer_names)).all()
    assert recorded.index.tolist() == list(range(len(recorded)))
    killed = max(done.values())
    lost = {step: when for step, when in done.items() if step >= len(recorded)}
    assert all(killed - when <= 1.0 for when in lost.values())
    return len(lost)


def test_a_killed_training_loses_at_most_its_last_second(tmp_path: Path) -> None:
    moments = random.Random(0)
    folders = [tmp_path / f"run{n}" for n in range(KILLS)]
    waits = [moments.uniform(0.0, 3.0) for _ in folders]
    with ThreadPoolExecutor(2) as pool:
        accounts = list(pool.map(train_and_kill, folders, waits))
    assert sum(len(done) for done in accounts) > 10 * KILLS
    for folder, done in zip(folders, accounts, strict=True):
        check(folder, done)


def test_a_lost_run_can_be_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train_and_kill(folder, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dynoscope.DynoscopeWarning)
        before = dynoscope.open_run(folder).last_step
        assert before is not None
        model = MixedNet()
        optimizer = OPTIMIZERS["lion"](model)
        with dynoscope.watch(model, optimizer, run=folder, resume=True):
            train(model, optimizer, 2)
        run = dynoscope.open_run(folder)
        assert run.status == "finished"
        assert run.last_step == before + 2
        assert run.layers("lr", "norm.bias")["step"].tolist() == [*range(before + 3)]
