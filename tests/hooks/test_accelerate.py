"""Loops with an Accelerator: what it prepares is watched, what it logs recorded."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import GeneralTracker
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dynoscope
from dynoscope.errors import DynoscopeWarning
from dynoscope.hooks.accelerate import DynoscopeTracker
from tests.hooks.snapshots import Snapshots, bits, hooks_of


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Accelerators of one process share their settings."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


class Loop:
    """A training with accumulation and clipping, as Accelerate's users write it."""

    def __init__(self, **kw: Any) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        adamw = torch.optim.AdamW(net.parameters(), lr=1e-2)
        images = torch.randn(64, 6)
        loader = DataLoader(TensorDataset(images, images[:, :1].sin()), 8)
        self.steps, self.inner = Snapshots(net), adamw
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2, **kw)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            net, adamw, loader
        )

    def train(self, fails_at: int | None = None) -> None:
        for index, (inputs, targets) in enumerate(self.loader):
            if index == fails_at:
                raise ArithmeticError("loss is 7")
            with self.accelerator.accumulate(self.model):
                loss = (self.model(inputs) - targets).square().mean()
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.05)
                self.optimizer.step()
                self.optimizer.zero_grad()
            self.accelerator.log({"loss": loss.item(), "note": "fine"}, step=99)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_numbers_are_those_of_the_real_steps(precision: str, run: Path) -> None:
    loop = Loop(mixed_precision=precision)
    loop.steps.follow(loop.inner)
    with dynoscope.watch(loop.model, loop.optimizer, run=run, strict=True) as scope:
        loop.train()
        assert scope.step == 4
    assert hooks_of(loop.inner) == 2  # those of the snapshots
    loop.steps.check(run)
    clipped = dynoscope.open_run(run).layers("grad_l2", "*")["grad_l2"]
    assert clipped.max() == pytest.approx(0.05, rel=1e-3)


def test_the_tracker_records_what_is_logged(run: Path) -> None:
    tracker = DynoscopeTracker(run, strict=True, config={"idea": "second"})
    loop = Loop(log_with=tracker)
    loop.accelerator.init_trackers("project", {"lr": 1e-2, "idea": "first"})
    assert loop.accelerator.get_tracker("dynoscope") is tracker
    tracker.watch(loop.model, loop.optimizer)
    assert tracker.tracker is not None
    with pytest.warns(DynoscopeWarning, match="before tracker.watch"):
        tracker.store_init_configuration({"lr": 2})
    loop.train()
    loop.accelerator.end_training()
    assert tracker.tracker is None
    assert hooks_of(loop.inner) == 0
    opened = dynoscope.open_run(run)
    assert opened.status == "finished"
    assert opened.config == {"lr": 1e-2, "idea": "second"}
    rows = opened.scalars()
    logged = rows[~rows["name"].str.startswith("dynoscope/")]
    assert set(logged["name"]) == {"loss"}
    assert logged["step"].tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert isinstance(tracker, GeneralTracker)


def test_watched_training_is_bit_identical(tmp_path: Path, run: Path) -> None:
    outcomes = []
    for watched in (False, True):
        loop = Loop()
        with (
            dynoscope.watch(loop.model, loop.optimizer, run=run, strict=True)
            if watched
            else contextlib.nullcontext()
        ):
            loop.train()
            loop.accelerator.save_state(str(tmp_path / "saved"))
            before = bits(loop.model, loop.optimizer)
            loop.train()
            outcomes.append((bits(loop.model, loop.optimizer), torch.rand(3).tolist()))
            loop.accelerator.load_state(str(tmp_path / "saved"))
            assert bits(loop.model, loop.optimizer) == before
    assert outcomes[0] == outcomes[1]


def test_a_resumed_loop_goes_on_in_its_run(run: Path) -> None:
    for start in (0, 2):
        loop = Loop()
        tracker = DynoscopeTracker(run, quiet=True)
        tracker.watch(loop.model, loop.optimizer, start_step=start)
        loop.train()
        tracker.finish()
    steps = dynoscope.open_run(run).layers(layer="*")["step"]
    assert steps.tolist() == list(range(6))


SCRIPT = """
from dynoscope.hooks.accelerate import DynoscopeTracker
from tests.hooks.test_accelerate import Loop
tracker = DynoscopeTracker({run!r})
loop = Loop()
tracker.watch(loop.model, loop.optimizer)
loop.train({fails_at})
"""


@pytest.mark.parametrize(
    ("fails_at", "exception"),
    [
        (5, "ArithmeticError: loss is 7"),
        (None, "TrainingStoppedError: the training ended before it was done"),
    ],
)
def test_a_process_that_ends_closes_the_run(
    fails_at: int | None, exception: str, run: Path
) -> None:
    script = SCRIPT.format(run=str(run), fails_at=fails_at)
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=60)
    assert done.returncode == (fails_at is not None)
    opened = dynoscope.open_run(run)
    assert (opened.status, opened.exception) == ("failed", exception)
    assert opened.last_step == (1 if fails_at else 3)
