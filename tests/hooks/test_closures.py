"""Steps with a closure: gradients that come into being inside the step."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynoscope
from dynoscope.optim import Lion
from tests.hooks.loops import Closure, Witness, check, net, numbered, state_of

Make: TypeAlias = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=1e-3, fused=True),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.1),
    "lion": lambda m: Lion(m.parameters(), lr=1e-3, weight_decay=0.1),
    "lbfgs": lambda m: torch.optim.LBFGS(
        m.parameters(), lr=0.1, max_iter=4, line_search_fn="strong_wolfe"
    ),
}


def train(
    model: nn.Module, optimizer: Any, by_keyword: bool, set_to_none: bool
) -> list[Closure]:
    closures, losses = [], []
    for _ in range(4):
        closure = Closure(model, optimizer, set_to_none)
        arguments: Any = {"closure": closure} if by_keyword else closure
        losses.append(
            optimizer.step(**arguments) if by_keyword else optimizer.step(arguments)
        )
        closures.append(closure)
    assert all(isinstance(loss, Tensor | float) for loss in losses)
    return closures


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(("by_keyword", "set_to_none"), [(False, True), (True, False)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_numbers_of_a_step_with_a_closure(
    name: str, by_keyword: bool, set_to_none: bool, tmp_path: Path
) -> None:
    model = net()
    optimizer = OPTIMIZERS[name](model)
    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(
            model, optimizer, run=tmp_path / "run", strict=True, histograms=True
        ) as scope,
    ):
        closures = train(model, optimizer, by_keyword, set_to_none)
        assert scope.step == 4
    assert all((c.calls > 1) == (name == "lbfgs") for c in closures)
    for seen, closure in zip(witness.steps, closures, strict=True):
        seen.grad = closure.first
    run = dynoscope.open_run(tmp_path / "run")
    check(run, numbered(witness.steps))
    counted = run.histograms()
    counts = counted[counted["quantity"] == "gradient"]["counts"]
    assert {sum(c) for c in counts} == {w.size for w in closures[0].first.values()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_with_closures_is_bit_identical(name: str, tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        model = net()
        optimizer = OPTIMIZERS[name](model)
        scope = (
            dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True)
            if watching
            else contextlib.nullcontext()
        )
        with scope:
            calls = [c.calls for c in train(model, optimizer, False, True)]
        ends.append((calls, state_of(model, optimizer)))
    assert ends[0] == ends[1]


def test_closures_of_any_kind_are_called_as_they_are(tmp_path: Path) -> None:
    model = net()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
    closure = Closure(model, optimizer, True)
    kinds: list[Any] = [closure, functools.partial(closure), closure.__call__]
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for kind in kinds:
            assert isinstance(optimizer.step(kind), Tensor)
        optimizer.step(None)
        optimizer.step()
    rows = dynoscope.open_run(tmp_path / "run").layers("grad_l2", "0.weight")
    assert rows["grad_l2"].gt(0).tolist() == [True] * 5


def test_a_closure_that_raises_leaves_no_step(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    error = ArithmeticError("no loss today")
    closure = Closure(model, optimizer, True)

    def failing() -> Tensor:
        raise error

    def failing_late() -> Tensor:
        closure()
        raise error

    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope,
    ):
        for bad in (failing, failing_late):
            with pytest.raises(ArithmeticError) as caught:
                optimizer.step(bad)
            assert caught.value is error
            witness.steps.clear()
        closure.calls = 0
        optimizer.step(closure)
        assert scope.step == 1
    witness.steps[0].grad = closure.first
    check(dynoscope.open_run(tmp_path / "run"), numbered(witness.steps))


def test_a_step_that_is_not_measured_gets_the_users_own_closure(tmp_path: Path) -> None:
    model, given = net(), []

    class Curious(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            given.append(closure)
            return super().step(closure)

    torch.optim.SGD(model.parameters())  # arms the hooks of the parent's step
    optimizer = Curious(model.parameters(), lr=0.1)
    closure = Closure(model, optimizer, True)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", every=2, strict=True):
        for _ in range(3):
            optimizer.step(closure)
    optimizer.step(closure)
    assert [each is closure for each in given] == [False, True, False, True]
    assert closure.calls == 4
    assert given[0].__wrapped__ is closure


class Tilted(torch.optim.SGD):
    """Goes uphill first, and takes the gradient there: as sharpness-aware ones do."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        parameters = self.param_groups[0]["params"]
        for parameter in parameters:
            parameter.add_(0.01)
        with torch.enable_grad():
            loss = closure()
        for parameter in parameters:
            parameter.sub_(0.01)
        super().step()
        return loss


def test_weights_are_those_before_the_step_whatever_comes_first(tmp_path: Path) -> None:
    model = net()
    optimizer = Tilted(model.parameters(), lr=0.1)
    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True),
    ):
        closure = Closure(model, optimizer, True)
        optimizer.step(closure)
    seen = witness.steps[0]  # of the outer step
    seen.grad = closure.first
    rows = dynoscope.open_run(tmp_path / "run").layers().set_index("layer")
    for layer, w in seen.weight.items():
        row: Any = rows.loc[layer]
        assert row["weight_norm"] == pytest.approx(np.linalg.norm(w), rel=1e-5)
        assert row["grad_l2"] == pytest.approx(np.linalg.norm(seen.grad[layer]))
