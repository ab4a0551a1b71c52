"""Optimizers around optimizers: the step that really runs is what is measured."""

import collections
import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pytest
import pytorch_optimizer
import schedulefree
import torch
from torch import nn
from torch.multiprocessing.spawn import start_processes

import dynoscope
from dynoscope.errors import UnwatchableError
from dynoscope.hooks.wrappers import resolve
from dynoscope.optim import Rotational
from tests.hooks.readings import adam_root, check, info, net, record, state
from tests.hooks.zero import train_and_check


class TimmLookahead(torch.optim.Optimizer):
    """Stands in for timm's Lookahead, which needs torchvision: its hooks never run."""

    def __init__(self, base: torch.optim.Optimizer, k: int = 2) -> None:
        self._optimizer_step_pre_hooks = collections.OrderedDict()
        self._optimizer_step_post_hooks = collections.OrderedDict()
        self._base_optimizer, self.k, self.count = base, k, 0
        self.param_groups, self.defaults = base.param_groups, base.defaults
        self.state = collections.defaultdict(dict)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self._base_optimizer.step(closure)
        self.count += 1
        for p in (p for group in self.param_groups for p in group["params"]):
            state = self._base_optimizer.state[p]
            slow = state.setdefault("lookahead_slow_buff", p.clone())
            if self.count % self.k == 0:
                p.copy_(slow.lerp_(p, 0.5))


TimmLookahead.__name__ = "Lookahead"


class Bare(torch.optim.Optimizer):
    """Without torch's `__init__`, and nothing inside."""

    def __init__(self, params: Any) -> None:
        self.param_groups = [{"params": list(params), "lr": 0.1}]
        self.state = collections.defaultdict(dict)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise AssertionError("is not to be stepped")


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)


def check_adamw(
    run: Path, model: nn.Module, inner: Any, outer: Any, **options: Any
) -> None:
    """Train by the outer's steps; what is read is the inner's."""
    momentum, root = state(inner, "exp_avg"), adam_root(inner)
    steps = record(run, model, outer, momentum=momentum, root=root, **options)
    check(run, steps, "momentum", "second moment")


def accelerated(inner: torch.optim.Optimizer) -> Any:
    accelerate.Accelerator(cpu=True)
    return accelerate.optimizer.AcceleratedOptimizer(inner)


def of_lightning(module: str, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compiles a function as it is imported
        return getattr(importlib.import_module(f"lightning.{module}"), name)


def lightning(inner: torch.optim.Optimizer) -> Any:
    return of_lightning("pytorch.core.optimizer", "LightningOptimizer")(inner)


def fabric(inner: torch.optim.Optimizer) -> Any:
    strategy = of_lightning("fabric.strategies", "SingleDeviceStrategy")("cpu")
    return of_lightning("fabric.wrappers", "_FabricOptimizer")(inner, strategy)


SHELLS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "Accelerate": accelerated,
    "Lightning": lightning,
    "Fabric": fabric,
    "one in another": lambda inner: accelerated(lightning(inner)),
}


@pytest.mark.parametrize("name", ["Accelerate", "Fabric"])
def test_a_shell_changes_nothing(name: str, tmp_path: Path) -> None:
    model = net()
    inner = adamw(model)
    check_adamw(tmp_path / "run", model, inner, SHELLS[name](inner))
    found = info(tmp_path / "run")
    assert (found["name"], found["kinds"]) == ("AdamW", ["adamw"])
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["pred_angular_update"].notna().all()


@pytest.mark.parametrize("name", SHELLS)
def test_a_shell_is_taken_off(name: str) -> None:
    inner = adamw(net())
    assert resolve(SHELLS[name](inner)) is inner


def test_accelerate_accumulates_and_only_steps_count(tmp_path: Path) -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = net()
    model, optimizer = accelerator.prepare(model, adamw(model))
    run = tmp_path / "run"
    with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True) as scope:
        for _ in range(6):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.randn(8, 64)).square().mean())
                optimizer.step()
                optimizer.zero_grad()
        assert scope.step == 3
    assert dynoscope.open_run(run).layers("update_norm")["update_norm"].gt(0).all()


def test_a_lookahead_that_runs_hooks_is_measured_as_a_whole(tmp_path: Path) -> None:
    """Its jumps back to the slow weights are part of its steps."""
    model = net()
    inner = adamw(model)
    outer = pytorch_optimizer.Lookahead(inner, k=2)
    assert resolve(outer) is outer
    check_adamw(tmp_path / "run", model, inner, outer)
    found = info(tmp_path / "run")
    assert found["name"] == "Lookahead(AdamW)"
    assert found["kinds"] == [None]
    assert found["reasons"] == [
        "no theory covers what Lookahead adds to the steps of AdamW"
    ]


def test_a_lookahead_that_runs_no_hooks_is_seen_from_inside(tmp_path: Path) -> None:
    model = net()
    inner, run = adamw(model), tmp_path / "run"
    weight = model.get_parameter("3.weight")
    outer, updates = TimmLookahead(inner), []
    handle = inner.register_step_pre_hook(
        lambda *_: updates.append(weight.detach().double().clone())
    )
    assert resolve(outer) is inner
    inner.register_step_post_hook(
        lambda *_: updates.append(weight.detach().double() - updates.pop())
    )
    record(run, model, outer)
    handle.remove()
    frame = dynoscope.open_run(run).layers(["update_norm", "momentum_norm"], "3.weight")
    norms = [float(update.norm()) for update in updates]
    assert frame["update_norm"].tolist() == pytest.approx(norms, rel=1e-5)
    assert frame["momentum_norm"].gt(0).tolist() == [False, True, True, True]
    assert info(run)["reasons"] == [
        "no theory covers what Lookahead adds to the steps of AdamW"
    ]


@pytest.mark.parametrize("in_parts", [False, True])
def test_sam_is_measured_at_the_step_it_comes_down_to(
    in_parts: bool, tmp_path: Path
) -> None:
    model = net()
    outer: Any = pytorch_optimizer.SAM(
        model.parameters(), torch.optim.AdamW, rho=0.1, lr=1e-3
    )
    seen: list[dict[str, tuple[np.ndarray, ...]]] = []
    inner = outer.base_optimizer

    def note(*_: Any) -> None:
        arrays = {
            name: tuple(x.detach().double().numpy().ravel() for x in (p, p.grad))
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        seen.append({name: tuple(map(np.copy, pair)) for name, pair in arrays.items()})

    inner.register_step_pre_hook(note)
    run = tmp_path / "run"
    with dynoscope.watch(model, outer, run=run, strict=True, quiet=True) as scope:
        for _ in range(3):
            x = torch.randn(8, 64)

            def closure(x: torch.Tensor = x) -> torch.Tensor:
                outer.zero_grad()
                loss: torch.Tensor = model(x).square().mean()
                loss.backward()
                return loss

            closure()
            if in_parts:
                outer.first_step()
                closure()
                outer.second_step()
            else:
                outer.step(closure)
        assert scope.step == 3
    for row in dynoscope.open_run(run).layers().to_dict("records"):
        weight, grad = seen[row["step"]][row["layer"]]
        assert row["weight_norm"] == pytest.approx(np.linalg.norm(weight), rel=1e-5)
        assert row["grad_l2"] == pytest.approx(np.linalg.norm(grad), rel=1e-5)
        assert row["step"] == 0 or row["momentum_norm"] > 0
    assert info(run)["name"] == "SAM(AdamW)"
    assert info(run)["kinds"] == [None]


def test_a_schedule_free_wrapper(tmp_path: Path) -> None:
    model = net()
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    outer = schedulefree.ScheduleFreeWrapper(inner)
    assert resolve(outer) is inner
    outer.train()
    record(tmp_path / "run", model, outer)
    assert info(tmp_path / "run")["name"] == "ScheduleFreeWrapper(SGD)"
    assert info(tmp_path / "run")["kinds"] == [None]


def test_a_rotational_optimizer_is_no_wrapper() -> None:
    outer = Rotational(adamw(net()))
    assert resolve(outer) is outer


def test_what_runs_no_hooks_and_has_nothing_inside_is_refused(tmp_path: Path) -> None:
    model = net()
    message = r"Bare runs no step hooks.*super\(\).__init__\(params, defaults\)"
    with (
        pytest.raises(UnwatchableError, match=message),
        dynoscope.watch(model, Bare(model.parameters()), run=tmp_path / "run"),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_what_is_no_optimizer_is_refused() -> None:
    optimizer = adamw(net())
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    for wrong in (schedule, "adamw", None, 3, net()):
        with pytest.raises(UnwatchableError, match="is not a torch"):
            resolve(wrong)


def test_an_optimizer_and_its_shell_are_the_same(tmp_path: Path) -> None:
    model = net()
    inner = adamw(model)
    both: Any = [inner, lightning(inner)]
    with (
        pytest.raises(UnwatchableError, match="same optimizer is given twice"),
        dynoscope.watch(model, both, run=tmp_path / "run"),
    ):
        pass


def test_zero_is_measured_whole_though_its_state_is_in_parts(tmp_path: Path) -> None:
    start_processes(train_and_check, (tmp_path,), nprocs=2)
    found = info(tmp_path / "run")
    assert found["name"] == "ZeroRedundancyOptimizer(AdamW)"
    assert found["kinds"] == ["adamw"]
    assert "a part of the state" in found["unread"]
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["pred_angular_update"].notna().all()
