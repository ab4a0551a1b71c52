"""An optimizer that is watched and never stepped is named, with the likely cause."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import dynoscope

Loop = Callable[[nn.Module, torch.optim.Optimizer], None]


def backward(model: nn.Module, scale: float = 1.0) -> None:
    (model(torch.ones(2, 4)).square().sum() * scale).backward()


def by_another(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    backward(model)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def by_a_scaler(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(model(torch.full((2, 4), torch.inf)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()


def by_a_scheduler(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.param_groups[0]["lr"] *= 0.5


def never(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    backward(model)


def elsewhere(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """As where the model is trained in another process."""


def on_others(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    assert isinstance(model, nn.Sequential)
    model[0] = nn.Linear(4, 3)


CAUSES: dict[str, tuple[Loop, str]] = {
    "another": (by_another, "its weights did change"),
    "scaler": (by_a_scaler, "a GradScaler skips every step"),
    "scheduler": (by_a_scheduler, "its learning rate changed"),
    "never": (never, "optimizer.step() was not called on this object"),
    "elsewhere": (elsewhere, "the model in another process"),
    "replaced": (on_others, "the model has other parameters by now"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_named(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop, cause = CAUSES[name]
    model = nn.Sequential(nn.Linear(4, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        loop(model, optimizer)
    (problem,) = dynoscope.open_run(tmp_path / "run").problems
    assert problem.startswith("AdamW was never stepped in the watch block")
    assert cause in problem
    assert problem in caplog.text


def test_of_several_only_the_one_that_rested_is_named(tmp_path: Path) -> None:
    models = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    busy = torch.optim.SGD(models["a"].parameters(), lr=0.1)
    idle = torch.optim.AdamW(models["b"].parameters(), lr=0.1)
    with dynoscope.watch(models, [busy, idle], run=tmp_path / "run"):
        backward(models["a"])
        busy.step()
    (problem,) = dynoscope.open_run(tmp_path / "run").problems
    assert problem.startswith("AdamW was never stepped")


def test_an_error_before_the_first_step_explains_itself(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(ZeroDivisionError),
        dynoscope.watch(model, optimizer, run=tmp_path / "run"),
    ):
        raise ZeroDivisionError
    assert dynoscope.open_run(tmp_path / "run").problems == []
