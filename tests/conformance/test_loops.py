"""Every loop, every check: what `watch` promises holds in the loops people write."""

import contextlib
import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
import torch

import dynoscope
from tests.conformance.frameworks import FRAMEWORKS
from tests.conformance.loops import LOOPS
from tests.conformance.matrix import CHECKS
from tests.conformance.training import Seen, Training

STEPS: Final = 5

pytestmark = pytest.mark.filterwarnings(
    r"ignore:`torch\.jit:DeprecationWarning",  # torch's own, when it compiles a step
    r"ignore:`isinstance\(treespec, LeafSpec:FutureWarning",  # Lightning's
    r"ignore:.*does not have many workers",
    r"ignore:.*is smaller than the logging interval",
)


TRAININGS: Final = {**LOOPS, **FRAMEWORKS}


@pytest.fixture(params=TRAININGS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def quiet_compiler() -> Iterator[None]:
    yield
    torch.compiler.reset()


def fresh(name: str) -> Training:
    torch.manual_seed(11)
    return TRAININGS[name]()


def watched(training: Training, run: Path, **options: Any) -> Any:
    return training.watch(run, strict=True, quiet=True, **options)


def test_bit_identical(loop: str, tmp_path: Path) -> None:
    states = []
    for scope in (False, True):
        training = fresh(loop)
        block = (
            watched(training, tmp_path / "run", histograms=True)
            if scope
            else contextlib.nullcontext()
        )
        with block:
            training.run(STEPS)
        states.append(training.state())
    assert states[0] == states[1]


def test_right_numbers(loop: str, tmp_path: Path) -> None:
    training = fresh(loop)
    with watched(training, tmp_path / "run"):
        training.run(STEPS)
        training.close()
    run = dynoscope.open_run(tmp_path / "run")
    assert not [p for p in run.problems if "failed" in p]
    check_rows(run.layers(), training.seen)


def check_rows(rows: pd.DataFrame, seen: list[Seen]) -> None:
    """What was recorded is what the optimizer should have seen, layer by layer."""
    checked = 0
    for name in rows["layer"].unique().tolist():
        own = rows[rows["layer"] == name]
        steps = [s for s in seen if name in s.weights]
        assert own["step"].is_unique
        assert len(own) == len(steps), name
        for row, at in zip(own.to_dict("records"), steps, strict=True):
            w, after = at.weights[name].flatten(), at.after[name].flatten()
            d = after - w
            close(row["weight_norm"], w.norm())
            close(row["update_norm"], d.norm(), float(w.norm()) * 1e-7)
            # in float64 an arctan of the two sides does for all but the tiniest
            if w.is_complex():
                w, d = (torch.view_as_real(x).flatten() for x in (w, d))
            if w.norm() > 0 and w.numel() > 1:
                along = (w @ d) / (w @ w)
                turn = (d - along * w).norm() / ((1 + along) * w.norm())
                close(row["angular_update"], torch.atan(turn), 2e-7)
            if name in at.grads:
                g = at.grads[name].flatten()
                close(row["grad_l2"], g.norm())
                close(row["grad_l1"], l1(g))
            else:
                assert np.isnan(row["grad_l2"])
            checked += 1
    names = {name for s in seen for name in s.weights}
    assert checked == sum(len(s.weights) for s in seen) >= len(names)


def l1(g: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(g) if g.is_complex() else g).abs().sum()


def close(found: float, wanted: torch.Tensor, room: float = 0.0) -> None:
    assert found == pytest.approx(float(wanted), rel=1e-4, abs=1e-12 + room)


def test_nothing_is_left(loop: str, tmp_path: Path) -> None:
    training = fresh(loop)
    hooks, threads = training.hooks(), threading.active_count()
    with watched(training, tmp_path / "run"):
        training.run(2)
    assert training.hooks() == hooks
    assert threading.active_count() == threads


def outcome(work: Callable[[], Any]) -> str:
    try:
        work()
    except Exception as error:
        return type(error).__name__
    return "done"


def test_copies(loop: str, tmp_path: Path) -> None:
    """What can be copied, pickled and saved without watching can be with it."""
    training = fresh(loop)
    works = [
        lambda: copy.deepcopy(training.models),
        lambda: copy.deepcopy(training.optimizers),
        lambda: pickle.loads(pickle.dumps(training.models)),
        lambda: pickle.loads(pickle.dumps(training.optimizers)),
        training.state,
    ]
    training.run(1)
    before, during = [outcome(work) for work in works], []
    training.interrupt = lambda: during.append([outcome(work) for work in works])
    with watched(training, tmp_path / "run"):
        training.run(2)
    assert during == [before] * 2


def test_again(loop: str, tmp_path: Path) -> None:
    """A cell of a notebook is run again, on the same objects and the same folder."""
    training = fresh(loop)
    hooks = training.hooks()
    for _ in range(3):
        training.seen.clear()
        with watched(training, tmp_path / "run", overwrite=True):
            training.run(2)
            training.close()
        assert training.hooks() == hooks
        rows = dynoscope.open_run(tmp_path / "run").layers()
        assert len(rows) == sum(len(seen.weights) for seen in training.seen)


def test_exceptions_pass(loop: str, tmp_path: Path) -> None:
    training = fresh(loop)
    hooks, threads = training.hooks(), threading.active_count()
    error, calls = ArithmeticError("the loss is not what it was"), 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error

    training.interrupt = interrupt
    with (
        pytest.raises(ArithmeticError) as caught,
        watched(training, tmp_path / "run"),
    ):
        training.run(STEPS)
    assert caught.value is error
    assert (training.hooks(), threading.active_count()) == (hooks, threads)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "failed"
    assert len(run.layers()) == sum(len(seen.weights) for seen in training.seen)


def test_every_check_is_in_the_matrix() -> None:
    tests = {name for name in globals() if name.startswith("test_")}
    assert {f"test_{check}" for check in CHECKS} < tests
