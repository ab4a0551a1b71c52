"""Hooks in the loops people write, and when something of ours breaks."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dynoscope
from dynoscope.metrics.sums import Kernel
from dynoscope.recorder import recorder
from dynoscope.recorder.builder import TableBuilder
from tests.networks import OPTIMIZERS, Digits, MixedNet, mixed_loss, train


def small() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


class Doubling(torch.optim.SGD):
    """Calls its parent's step, whose hooks torch runs as well."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Stumbling(torch.optim.SGD):
    """Raises in every other step; torch then runs no post-hook."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        if self.calls % 2:
            raise FloatingPointError("not today")
        return super().step(closure)


def test_a_step_inside_a_step_is_one_step(tmp_path: Path) -> None:
    model = small()
    torch.optim.SGD(model.parameters(), lr=0.1)  # the parent's hooks are armed
    optimizer = Doubling(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope:
        for _ in range(3):
            step(model, optimizer)
        assert scope.step == 3
    run = dynoscope.open_run(tmp_path / "run")
    assert (
        run.layers("update_norm", "weight")["update_norm"].gt(0).tolist() == [True] * 3
    )


def test_a_step_that_raises_is_not_counted(tmp_path: Path) -> None:
    model = small()
    optimizer = Stumbling(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope:
        for _ in range(6):
            try:
                step(model, optimizer)
            except FloatingPointError:
                continue
        assert scope.step == 3
    assert dynoscope.open_run(tmp_path / "run").last_step == 2


def test_an_unknown_optimizer_is_measured_without_predictions(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        step(model, optimizer)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.manifest["optimizer"]["reasons"] == [
        "no theory is known for Adagrad: its steps only ever shrink"
    ]
    row = run.layers(layer="weight").iloc[0]
    assert row["angular_update"] > 0
    assert np.isnan(row["momentum_norm"])
    assert np.isnan(row["pred_angular_update"])


def test_a_subclass_with_a_step_of_its_own_is_not_taken_for_its_parent(
    tmp_path: Path,
) -> None:
    model = small()
    optimizer = Doubling(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        step(model, optimizer)
    reasons = dynoscope.open_run(tmp_path / "run").manifest["optimizer"]["reasons"]
    assert reasons == ["Doubling replaces the step of SGD"]


def test_parameters_without_a_gradient(tmp_path: Path) -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(4, 3)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for _ in range(2):
            model["used"](torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers(layer="unused.weight")
    assert rows["grad_l2"].isna().all()
    assert rows["update_norm"].tolist() == [0, 0]
    assert rows["unmoved_share"].tolist() == [1, 1]
    whole, used = run.layers(layer="*"), run.layers(layer="used.*")
    np.testing.assert_allclose(whole["grad_l2"], used["grad_l2"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own imports
def test_names_are_free_of_wrappers(tmp_path: Path) -> None:
    model = small()
    compiled: Any = torch.compile(model)
    wrapped = torch.nn.DataParallel(compiled)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    with dynoscope.watch(wrapped, optimizer, run=tmp_path / "run", strict=True):
        step(model, optimizer)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.layer_names == ["weight", "bias"]
    assert run.manifest["model"]["name"] == "Linear"


def test_a_nan_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        step(model, optimizer)
        model(torch.full((2, 4), torch.nan)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        step(model, optimizer)
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers(layer="weight")
    assert rows["nonfinite"].tolist() == [0, 24, 24]  # gradient and weight of 12
    assert rows["weight_norm"].notna().tolist() == [True, True, False]
    assert np.isnan(run.layers("weight_norm", "*")["weight_norm"].iloc[-1])


def break_method(cls: type, name: str, after: int) -> Callable[..., Any]:
    """A method that works a few times and then raises."""
    original, calls = getattr(cls, name), 0

    def broken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise RuntimeError(f"injected into {name}")
        return original(*args, **kwargs)

    return broken


def test_a_folder_that_cannot_be_written_is_said_as_it_is(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    before = threading.active_count()
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match="file"),
        dynoscope.watch(model, optimizer, run=tmp_path / "file" / "run"),
    ):
        train(model, optimizer, 1)
    assert not optimizer._optimizer_step_pre_hooks
    assert threading.active_count() == before


def test_a_full_queue_skips_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build = TableBuilder.build

    def slowly(self: TableBuilder, batch: Any) -> Any:
        time.sleep(0.1)
        return build(self, batch)

    monkeypatch.setattr(TableBuilder, "build", slowly)
    monkeypatch.setattr(recorder, "QUEUE_BYTES", 10_000)
    monkeypatch.setattr(recorder, "INTERVAL", 0.01)
    monkeypatch.setattr(recorder, "LATEST", 0.01)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        train(model, optimizer, 100)
    run = dynoscope.open_run(tmp_path / "run")
    progress = run.manifest["progress"]
    assert progress["skipped"] > 0
    assert progress["measured"] == run.layers()["step"].nunique()
    assert progress["measured"] + progress["skipped"] == 100
    assert f"{progress['skipped']} skipped" in capsys.readouterr().out


def test_a_step_that_is_not_measured_touches_no_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = MixedNet(), Digits()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", every=100) as scope:
        train(model, optimizer, 1)
        for name in ("before", "after", "ship"):
            monkeypatch.setattr(Kernel, name, break_method(Kernel, name, after=0))
        for _ in range(5):
            mixed_loss(model, data).backward()
            optimizer.step()
        assert scope.step == 6
    assert dynoscope.open_run(tmp_path / "run").problems == []
