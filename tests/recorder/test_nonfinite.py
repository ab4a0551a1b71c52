"""NaN and infinity wherever they can be: recorded as they are, nothing stops."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dynoscope
from tests.networks import OPTIMIZERS, MixedNet, train
from tests.test_faults import everything

Spoil = Callable[[nn.Module, torch.optim.Optimizer], None]
BAD = (math.nan, math.inf, -math.inf)


def spoil_weights(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), BAD * 10, strict=False):
            parameter.view(-1)[0] = value


def spoil_gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter, value in zip(model.parameters(), BAD * 10, strict=False):
        parameter.register_hook(lambda grad, value=value: grad * value)


def spoil_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    train(model, optimizer, 1)
    for state, value in zip(optimizer.state.values(), BAD * 10, strict=False):
        for entry in state.values():
            if isinstance(entry, torch.Tensor):
                entry.view(-1)[0] = value


def spoil(key: str, value: float) -> Spoil:
    def change(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group[key] = value

    return change


SPOILS: dict[str, Spoil] = {
    "weights": spoil_weights,
    "gradients": spoil_gradients,
    "state": spoil_state,
    **{f"lr {bad}": spoil("lr", bad) for bad in BAD},
    **{f"decay {bad}": spoil("weight_decay", bad) for bad in BAD},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("optimizer_name", ["adamw", "lion", "sgdm"])
@pytest.mark.parametrize("name", SPOILS)
def test_nothing_stops(name: str, optimizer_name: str, tmp_path: Path) -> None:
    outcomes = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = MixedNet()
        optimizer = OPTIMIZERS[optimizer_name](model)
        SPOILS[name](model, optimizer)
        if not watched:
            train(model, optimizer, 4)
        else:
            with dynoscope.watch(
                model,
                optimizer,
                run=tmp_path / "run",
                histograms=True,
                strict=True,
                quiet=True,
            ) as scope:
                train(model, optimizer, 4, lambda loss: scope.log(loss=loss))
        outcomes.append(everything(model, optimizer))
    assert outcomes[0] == outcomes[1]
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.layers()["step"].nunique() == 4
    assert len(run.scalars("loss")) == 4
    rows = run.layers(["nonfinite", "lr", "weight_decay"])
    if name in ("weights", "gradients", "state"):
        assert (rows["nonfinite"] > 0).any()
    else:
        key = {"lr": "lr", "decay": "weight_decay"}[name.split()[0]]
        assert not np.isfinite(rows[key]).any()


def test_numbers_that_are_logged_stay_what_they_are(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope:
        for value in BAD:
            scope.log(plain=value, tensor=torch.tensor(value))
            scope.log(huge=1e300, half=torch.tensor(value, dtype=torch.float16))
    scalars = dynoscope.open_run(tmp_path / "run").scalars()
    for name in ("plain", "tensor", "half"):
        np.testing.assert_array_equal(scalars[scalars["name"] == name]["value"], BAD)
    assert (scalars[scalars["name"] == "huge"]["value"] == 1e300).all()


def test_problems_that_change_at_every_step_are_one(tmp_path: Path) -> None:
    """A learning rate beyond all theory, another one at every step."""
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    run = tmp_path / "run"
    with dynoscope.watch(model, optimizer, run=run, every=1, quiet=True) as scope:
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 10.0 + step
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
    problems = dynoscope.open_run(tmp_path / "run").problems
    assert 1 <= len(problems) <= 3
    assert len(scope._recorder._rows._builder.problems) <= 3  # type: ignore[union-attr]
