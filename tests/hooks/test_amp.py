"""Mixed precision: gradients as the optimizer means them, and steps called off."""

import contextlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional

import dynoscope
from dynoscope.recorder.scalers import LOSS_SCALE
from tests.hooks.loops import Array, Seen, Witness, batch, check, net, state_of

Make: TypeAlias = Callable[[nn.Module], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=0.1),
    "fused adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, fused=True),
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9),
    "fused sgd": lambda m: torch.optim.SGD(
        m.parameters(), lr=0.1, momentum=0.9, fused=True
    ),
    "fused adagrad": lambda m: torch.optim.Adagrad(m.parameters(), fused=True),
}


class Loop:
    """fp16 autocast and a GradScaler; gradients overflow at some iterations.

    Attributes:
        grads: at each iteration, gradients of the loss itself.
        scales: at each iteration, what it was multiplied by.
        taken: iterations whose step moved the weights.
        data: the batch of all iterations; None for new ones.
    """

    def __init__(
        self, name: str, overflows: tuple[int, ...] | None = None, unscale: bool = False
    ) -> None:
        if overflows is None:
            # Where its first step overflows, torch's fused SGD goes on from a momentum
            # that nobody has written to.
            overflows = (1, 2, 4) if name == "fused sgd" else (0, 1, 4)
        self.model = net()
        self.optimizer = OPTIMIZERS[name](self.model)
        # It is lowered by 2 and raised by 3, which is no power of it.
        self.scaler = GradScaler("cpu", 2.0**12, growth_factor=3.0, growth_interval=3)
        self._overflows, self._unscale = overflows, unscale
        self.data: tuple[Tensor, Tensor] | None = None
        self.grads: list[dict[str, Array]] = []
        self.scales: list[float] = []
        self.taken: list[int] = []

    def run(self, iterations: int = 8) -> None:
        for index in range(iterations):
            inputs, labels = self.data or batch()
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                loss = functional.cross_entropy(self.model(inputs), labels)
            if index in self._overflows:
                loss = loss * torch.inf
            else:
                self.taken.append(index)
            self.scaler.scale(loss).backward()
            self.scales.append(self.scaler.get_scale())
            scale = self.scales[-1]
            if self._unscale:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
                scale = 1.0
            grads = Witness(self.model, self.optimizer).gradients()
            self.grads.append({name: g / scale for name, g in grads.items()})
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def state(self) -> bytes:
        return state_of(self.model, self.optimizer, self.scaler.state_dict())


def watched(loop: Loop, folder: Path, **options: Any) -> tuple[Any, list[Seen]]:
    with (
        Witness(loop.model, loop.optimizer) as witness,
        dynoscope.watch(
            loop.model, loop.optimizer, run=folder, strict=True, **options
        ) as scope,
    ):
        loop.run()
        fires_always = (
            "fused" in loop.optimizer.defaults and (loop.optimizer.defaults["fused"])
        )
        assert scope.step == (8 if fires_always else len(loop.taken))
    return dynoscope.open_run(folder), witness.steps


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_unscaled_and_overflows_no_steps(
    name: str, unscale: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = Loop(name, unscale=unscale)
    run, seen = watched(loop, tmp_path / "run", histograms=True)
    # A fused optimizer is stepped at overflows, too, which then count as steps.
    numbers = loop.taken if len(seen) == 8 else range(len(loop.taken))
    steps = {}
    for number, iteration in zip(numbers, loop.taken, strict=True):
        steps[number] = seen[number]
        steps[number].grad = loop.grads[iteration]
    check(run, steps)
    assert run.manifest["progress"]["overflowed"] == 3
    assert run.manifest["progress"]["measured"] == 5
    assert "5 steps measured, 3 overflowed, in" in capsys.readouterr().out
    scales = run.scalars(LOSS_SCALE)
    iterations = range(8) if len(seen) == 8 else loop.taken
    assert scales["step"].tolist() == list(range(len(iterations)))
    assert scales["value"].tolist() == [loop.scales[k] for k in iterations]
    assert set(run.histograms()["step"]) <= set(numbers)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scaled_training_is_bit_identical(name: str, tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        loop = Loop(name)
        scope = (
            dynoscope.watch(
                loop.model, loop.optimizer, run=tmp_path / "run", strict=True,
                histograms=True,
            )
            if watching
            else contextlib.nullcontext()
        )  # fmt: skip
        with scope:
            loop.run()
        ends.append(loop.state())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("name", ["adamw", "fused adamw"])
def test_overflows_between_measured_steps_and_after_them(
    name: str, every: int, tmp_path: Path
) -> None:
    loop = Loop(name, overflows=(2, 3, 6, 7))
    run, _ = watched(loop, tmp_path / "run", every=every)
    assert run.manifest["progress"]["overflowed"] == 4


@pytest.mark.parametrize("name", ["adamw", "fused adamw"])
def test_predictions_count_the_steps_that_were_taken(name: str, tmp_path: Path) -> None:
    """Adam's bias correction follows its own count, which overflows leave alone."""
    columns = ["traj_weight_norm", "traj_angular_update", "pred_weight_norm"]
    ends = []
    for index, overflows in enumerate([(0, 1, 4), ()]):
        loop = Loop(name, overflows)
        loop.scaler = GradScaler("cpu", 2.0**12, backoff_factor=0.99, growth_interval=9)
        loop.data = batch()
        run, _ = watched(loop, tmp_path / str(index))
        rows = run.layers(columns, "0.weight")[columns].head(5)
        ends.append(rows.reset_index(drop=True))
    assert ends[0].notna().all().all()
    torch.testing.assert_close(
        torch.tensor(ends[0].to_numpy()), torch.tensor(ends[1].to_numpy()),
        rtol=1e-3, atol=0.0,
    )  # fmt: skip


def test_a_training_that_only_overflows_says_so(tmp_path: Path) -> None:
    loop = Loop("adamw", overflows=tuple(range(2, 8)))
    run, _ = watched(loop, tmp_path / "run")
    progress = run.manifest["progress"]
    assert (progress["measured"], progress["overflowed"]) == (2, 6)


def test_two_optimizers_with_one_scaler(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(4, 2)})
    fused = torch.optim.AdamW(model["a"].parameters(), fused=True)
    plain = torch.optim.SGD(model["b"].parameters(), lr=0.1)
    scaler = GradScaler("cpu", 1024.0, growth_interval=100)
    with dynoscope.watch(
        model, [fused, plain], run=tmp_path / "run", strict=True, histograms=True
    ):
        for index in range(6):
            loss = model["b"](model["a"](torch.ones(2, 3))).square().sum()
            scaler.scale(loss).backward()
            if index in (2, 3):
                weight = model["a"].weight
                assert isinstance(weight.grad, torch.Tensor)
                weight.grad.fill_(torch.inf)
            scaler.step(fused)
            scaler.step(plain)
            scaler.update()
            fused.zero_grad()
            plain.zero_grad()
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers("update_norm")
    steps = {name: rows[rows["layer"] == name]["step"].tolist() for name in rows.layer}
    assert steps["a.weight"] == [0, 1, 4, 5]
    assert steps["b.weight"] == [0, 1, 2, 3, 4, 5]
    assert run.manifest["progress"]["overflowed"] == 2
    assert run.scalars(LOSS_SCALE)["value"].tolist() == [1024.0] * 3 + [512, 256, 256]
    counted = run.histograms()
    assert set(counted[counted["layer"] == "a.weight"]["step"]) <= {0, 1, 4, 5}


def test_a_scaler_that_is_off_leaves_no_trace(tmp_path: Path) -> None:
    loop = Loop("fused adamw", overflows=())
    loop.scaler = GradScaler("cpu", enabled=False)
    run, seen = watched(loop, tmp_path / "run")
    check(run, dict(enumerate(seen)))
    assert run.scalars(LOSS_SCALE).empty
    assert run.manifest["progress"]["overflowed"] == 0


def test_a_scale_of_the_users_own_is_undone(tmp_path: Path) -> None:
    model = net()
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True),
    ):
        for _ in range(3):
            optimizer.zero_grad()
            (model(batch()[0]).square().mean() * 7.0).backward()
            optimizer.grad_scale = torch.tensor(7.0)
            optimizer.found_inf = torch.tensor(0.0)
            optimizer.step()
    for seen in witness.steps:
        seen.grad = {name: g / 7.0 for name, g in seen.grad.items()}
    check(dynoscope.open_run(tmp_path / "run"), dict(enumerate(witness.steps)))


def test_a_scaler_that_takes_another_s_place(tmp_path: Path) -> None:
    loop = Loop("adamw", overflows=())
    with dynoscope.watch(loop.model, loop.optimizer, run=tmp_path / "run", strict=True):
        loop.run(2)
        last = weakref.ref(loop.scaler)
        loop.scaler = GradScaler("cpu", 8.0)
        assert last() is None
        loop.run(2)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.scalars(LOSS_SCALE)["value"].tolist() == [4096, 4096]
    assert run.scalars(f"{LOSS_SCALE}/1")["value"].tolist() == [8, 8]
