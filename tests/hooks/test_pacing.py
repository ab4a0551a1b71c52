"""Which rounds are measured: budgets, jumps of a learning rate, what is recorded."""

import itertools
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynoscope
from dynoscope import ending
from dynoscope.hooks.device_clock import clock_of
from dynoscope.hooks.follower import Follower
from dynoscope.hooks.pacing import Pacing
from dynoscope.measurement import Work
from dynoscope.metrics.sums import Kernel
from dynoscope.recorder import Recorder
from dynoscope.schedule import FIRST, Budget, every


def optimizer_of(*rates: Any) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in rates]
    return torch.optim.SGD(groups)


def pacing_of(optimizer: torch.optim.Optimizer) -> Pacing:
    """One whose budget is spent for good after the first hundred steps."""
    pacing = Pacing(Budget(1e-9), [optimizer])
    for step in range(FIRST):
        assert pacing.is_due(step)
        pacing.spent(step, seconds=1.0, work=Work(0.0, step))
    assert not pacing.is_due(FIRST)
    return pacing


@pytest.mark.parametrize("kind", [float, torch.tensor])
@pytest.mark.parametrize(
    ("factor", "is_jump"), [(0.1, True), (10, True), (1.05, False), (0.95, False)]
)
def test_a_learning_rate_that_jumps_is_measured(
    kind: Any, factor: float, is_jump: bool
) -> None:
    optimizer = optimizer_of(kind(0.1), kind(0.2))
    pacing = pacing_of(optimizer)
    assert not pacing.is_due(FIRST + 1)
    if kind is float:
        optimizer.param_groups[1]["lr"] *= factor
    else:
        optimizer.param_groups[1]["lr"].mul_(factor)  # the same tensor
    assert pacing.is_due(FIRST + 2) is is_jump
    assert not pacing.is_due(FIRST + 3)  # it has jumped, and is where it is


def test_a_learning_rate_that_drifts_is_no_jump() -> None:
    optimizer = optimizer_of(0.1)
    pacing = pacing_of(optimizer)
    for step in range(FIRST, FIRST + 200):
        optimizer.param_groups[0]["lr"] *= 0.97
        assert not pacing.is_due(step)


@pytest.mark.parametrize("rates", [(0.0, 0.1), (0.1, 0.0)])
def test_from_and_to_zero_is_a_jump(rates: tuple[float, float]) -> None:
    optimizer = optimizer_of(rates[0])
    pacing = pacing_of(optimizer)
    optimizer.param_groups[0]["lr"] = rates[1]
    assert pacing.is_due(FIRST + 1)


def test_groups_may_come_and_lack_a_learning_rate() -> None:
    optimizer = optimizer_of(0.1)
    pacing = pacing_of(optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "lr": 1.0})
    assert not pacing.is_due(FIRST + 1)
    optimizer.param_groups[1]["lr"] = 2.0
    assert pacing.is_due(FIRST + 2)
    del optimizer.param_groups[0]["lr"]
    assert not pacing.is_due(FIRST + 3)


def test_an_interval_is_kept_to_whatever_the_rates_do() -> None:
    optimizer = optimizer_of(0.1)
    pacing = Pacing(every(10), [optimizer])
    assert pacing.is_due(0)
    optimizer.param_groups[0]["lr"] = 1.0
    assert not pacing.is_due(5)


def test_work_of_other_threads_counts() -> None:
    intervals = []
    for background in (0.0, 0.1):
        budget, seconds = Budget(0.01), itertools.count()
        pacing = Pacing(budget, [optimizer_of(0.1)], clock=seconds.__next__)
        for step in range(FIRST):
            pacing.is_due(step)
            # batches of ten come late, and in one go
            taken = step // 10 * 10
            work = Work(taken * background, taken)
            pacing.spent(step, seconds=0.1, work=work)
        intervals.append(budget.interval)
    assert intervals[1] == pytest.approx(2 * intervals[0], rel=0.2)


def test_work_that_grows_is_soon_seen_and_what_is_rare_not_forgotten() -> None:
    budget, seconds = Budget(0.01), itertools.count()
    pacing = Pacing(budget, [optimizer_of(0.1)], clock=seconds.__next__)
    done, intervals = 0.0, []
    for step in range(FIRST + 300):
        pacing.is_due(step)
        # ten times as much for each, once they are apart; and much, now and then
        done += 0.1 if step < FIRST else 1.0 + 50 * (step % 50 == 0)
        pacing.spent(step, seconds=0.0, work=Work(done, step + 1))
        intervals.append(budget.interval)
    assert intervals[FIRST - 1] == pytest.approx(10, abs=2)
    assert intervals[FIRST + 49] >= 90
    means = [sum(1 / x for x in intervals[-n:]) / n for n in (100, 200)]
    assert all(mean < 1.1 * 0.01 / 2 for mean in means)


def test_there_is_no_clock_for_what_is_no_accelerator() -> None:
    assert clock_of([torch.device("cpu"), torch.device("meta")]) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_clock_times_what_the_device_does() -> None:
    clock = clock_of([torch.device("cuda", 0), torch.device("cpu")])
    assert clock is not None
    x = torch.randn(4096, 4096, device="cuda")
    clock.start()
    for _ in range(20):
        x = (x @ x).clamp(-1, 1)
    clock.stop()
    assert clock.read() == 0.0  # nobody has waited
    torch.cuda.synchronize()
    assert clock.read() > 1e-4
    assert clock.read() == 0.0


def test_a_run_is_paced_by_default_and_says_what_it_cost(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ending, "TELLING", 0.0)
    model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [300])
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", findings=False):
        for _ in range(400):
            model(torch.randn(2, 8)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    run = dynoscope.open_run(tmp_path / "run")
    steps = run.groups()["step"].tolist()
    assert steps[:FIRST] == list(range(FIRST))
    assert len(steps) < 300  # of so short a step, measuring takes more than a percent
    assert 300 in steps
    assert (run.manifest["every"], run.manifest["budget"]) == (None, 0.01)

    cost = run.cost
    hooks = run.scalars("dynoscope/hook_seconds")["value"]
    assert cost.hooks == pytest.approx(hooks.sum())
    background = run.scalars("dynoscope/background_seconds")["value"].sum()
    assert 0 <= background <= cost.background
    assert 0 < cost.background
    assert cost.device == 0.0
    assert cost.seconds == cost.hooks + cost.background
    assert cost.share is not None
    assert f"for {cost.share:.1%} of the time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Recorder, "has_room"),
        (Follower, "is_current"),
        (Follower, "at_gradients"),
        (Kernel, "before"),
        (Kernel, "after"),
        (Kernel, "ship"),
    ],
)
def test_all_time_in_a_measured_step_is_counted_once(
    owner: type, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    its, pause = getattr(owner, name), 0.05

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(pause)
        return its(*args, **kwargs)

    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> float:
        model(torch.ones(1, 2)).sum().backward()
        return 0.0

    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", every=1, quiet=True, findings=False
    ):
        for step in range(4):
            if step == 1:
                monkeypatch.setattr(owner, name, slow)
            if name == "at_gradients":
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
    monkeypatch.undo()
    run = dynoscope.open_run(tmp_path / "run")
    hooks = run.scalars("dynoscope/hook_seconds")["value"]
    assert (hooks[1:] >= pause).all()
    assert hooks[1:].min() < 2 * pause  # were it counted twice, none would be


def test_every_overrides_the_budget(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", every=1, budget=1e-6, quiet=True
    ):
        for _ in range(FIRST + 20):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    assert len(run.groups()) == FIRST + 20
    assert (run.manifest["every"], run.manifest["budget"]) == (1, None)


@pytest.mark.parametrize("budget", [0, 2, math.nan, "1%"])
def test_a_budget_that_makes_no_sense_is_said(tmp_path: Path, budget: Any) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(dynoscope.errors.ScheduleError, match="budget="),
        dynoscope.watch(model, optimizer, run=tmp_path / "run", budget=budget),
    ):
        pass
    assert not (tmp_path / "run").exists()
