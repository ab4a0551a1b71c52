"""Recorded trajectories are theory's; the layers of a real training keep to them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from dynoscope import theory
from dynoscope.measurement import GroupState, Layer, OptimizerInfo, Subject, Sum
from dynoscope.metrics.derive import LayerSums
from dynoscope.optim import NormGD, SepNorm
from dynoscope.recorder.settings import Settings
from dynoscope.recorder.trajectories import LONGEST_GAP, Trajectories
from tests.networks import OPTIMIZERS, Digits, MixedNet, mixed_loss, train

STEPS = 12


def record(
    optimizer: torch.optim.Optimizer, model: nn.Module, folder: Path, every: int = 1
) -> dynoscope.Run:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    with dynoscope.watch(
        model, optimizer, run=folder, every=every, strict=True, quiet=True
    ):
        train(model, optimizer, STEPS, lambda loss: schedule.step())
    return dynoscope.open_run(folder)


def pivoted(run: dynoscope.Run, layers: list[str], column: str) -> Any:
    frame = run.layers(column, layers)
    wide = frame.pivot_table(column, "step", "layer", dropna=False)[layers]
    return wide.to_numpy(np.float64)


# None of them starts at 0, and the parameters of no two are one.
LAYERS = ["stem.0.weight", "stem.1.weight", "project.weight", "temperature"]


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("kind", ["adamw", "sgdm", "adam_l2", "lion"])
def test_columns_are_theory_s(kind: str, every: int, tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS[kind](model)
    run = record(optimizer, model, tmp_path / "run", every)
    norm, grad = (pivoted(run, LAYERS, name) for name in ("weight_norm", "grad_l2"))
    between = np.repeat(np.arange(len(norm)), every)
    group = optimizer.param_groups[0]
    found = theory.trajectory(
        kind,
        numel=[run.layers("numel", name)["numel"][0] for name in LAYERS],
        start_weight_norm=norm[0],
        lr=run.groups()["lr"].to_numpy()[between],
        weight_decay=group["weight_decay"],
        betas=group.get("betas"),
        momentum=group.get("momentum"),
        effective_grad_sq=((norm * grad) ** 2)[between],
    )
    for name, values in found._asdict().items():
        recorded = pivoted(run, LAYERS, f"traj_{name}")
        np.testing.assert_allclose(recorded, values[::every], rtol=1e-4)


def test_layers_of_normgd_share_a_step_over_all_groups(tmp_path: Path) -> None:
    model = MixedNet()
    groups: list[dict[str, Any]] = [
        {"params": list(model.stem.parameters()), "lr": 0.1, "weight_decay": 0.1},
        {"params": [p for n, p in model.named_parameters() if "stem" not in n]},
    ]
    optimizer = NormGD(groups, 0.05, (0.9, 0.99), 0.5)
    run = record(optimizer, model, tmp_path / "run")
    # biases start at 0 and are carried from the second step on
    names = [n for n in run.layer_names if pivoted(run, [n], "weight_norm")[0] > 0]
    norm, grad = (pivoted(run, names, name) for name in ("weight_norm", "grad_l2"))
    lr, decay = (pivoted(run, names, name) for name in ("lr", "weight_decay"))
    found = theory.trajectory(
        "normgd",
        numel=1,
        start_weight_norm=norm[0],
        lr=lr,
        weight_decay=decay,
        betas=(0.9, 0.99),
        effective_grad_sq=(norm * grad) ** 2,
    )
    recorded = pivoted(run, names, "traj_weight_norm")
    np.testing.assert_allclose(recorded[:2], found.weight_norm[:2], rtol=1e-5)
    assert len(names) < len(run.layer_names)


class Normalized(nn.Module):
    """Layers of which BatchNorm makes every row scale-invariant."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64))
            for _ in range(2)
        )
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = images.flatten(1)
        for layer in self.hidden:
            features = layer(features).relu()
        scores: Tensor = self.head(features)
        return scores


NOISY: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), 1e-2, weight_decay=0.5),
    "sgdm": lambda m: torch.optim.SGD(m.parameters(), 0.3, 0.9, weight_decay=5e-3),
    "sepnorm": lambda m: SepNorm(m.parameters(), 1e-3, weight_decay=5.0),
}


@pytest.mark.parametrize(
    ("kind", "every"), [("adamw", 1), ("adamw", 10), ("sgdm", 1), ("sepnorm", 1)]
)
def test_a_training_keeps_to_them(kind: str, every: int, tmp_path: Path) -> None:
    """Nine labels in ten are random, so that gradients are noise for the most part."""
    torch.manual_seed(0)
    model, data, batch, steps = Normalized(), Digits(32), 32, 800
    optimizer = NOISY[kind](model)
    peak = optimizer.param_groups[0]["lr"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peak, steps, cycle_momentum=False
    )
    folder = tmp_path / "run"
    with dynoscope.watch(model, optimizer, run=folder, every=every, quiet=True):
        for _ in range(steps):
            images, labels = data.draw()
            random = torch.randint(10, labels.shape)
            labels = torch.where(torch.rand(batch) < 0.9, random, labels)
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    run = dynoscope.open_run(folder)
    for name in ("hidden.0.0.weight", "hidden.1.0.weight"):
        frame = run.layers(layer=name)
        carried = (frame["traj_weight_norm"] / frame["weight_norm"] - 1).abs()
        still = (frame["pred_weight_norm"] / frame["weight_norm"] - 1).abs()
        assert carried.mean() < 0.04
        assert still.mean() > 0.2
        turned = frame["traj_angular_update"].mean() / frame["angular_update"].mean()
        assert turned == pytest.approx(1, abs=0.05)


def test_a_layer_without_gradient_stays_where_it_is(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    data = Digits()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        for step in range(STEPS):
            mixed_loss(model, data).backward()
            if 4 <= step < 8:
                model.project.weight.grad = None
            optimizer.step()
            optimizer.zero_grad()
    run = dynoscope.open_run(tmp_path / "run")
    norm = pivoted(run, ["project.weight"], "traj_weight_norm")[:, 0]
    angle = pivoted(run, ["project.weight"], "traj_angular_update")[:, 0]
    assert len(set(norm[4:9])) == 1
    assert (angle[4:8] == 0).all()
    assert (np.delete(angle, np.arange(4, 8)) > 0).all()


def test_what_theory_does_not_know_has_none(tmp_path: Path) -> None:
    model = MixedNet()
    run = record(torch.optim.Adagrad(model.parameters()), model, tmp_path / "run")
    assert run.layers()["traj_weight_norm"].isna().all()


def test_normgd_without_all_layers_has_none(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = NormGD(model.parameters())
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", exclude="stem", quiet=True
    ):
        train(model, optimizer, 3)
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["traj_weight_norm"].isna().all()


def test_a_resumed_run_goes_on_from_where_it_was(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS["sgdm"](model)
    record(optimizer, model, tmp_path / "run")
    with torch.no_grad():
        model.project.weight.mul_(2)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", resume=True, quiet=True
    ):
        train(model, optimizer, STEPS)
    run = dynoscope.open_run(tmp_path / "run")
    carried, norm = (
        pivoted(run, ["project.weight"], name)[:, 0]
        for name in ("traj_weight_norm", "weight_norm")
    )
    assert norm[STEPS] > 1.9 * norm[STEPS - 1]
    # What happened to the weight in between is not the optimizer's doing.
    np.testing.assert_allclose(carried[STEPS:], norm[STEPS:] / 2, rtol=0.02)


class TestByHand:
    """One layer, measured at steps of choice."""

    SUBJECT = Subject(
        "Net",
        (Layer("weight", (4, 4), "float32", "Linear", 0, rows=4),),
        (),
        OptimizerInfo("OrtSepNorm", ("ortsepnorm",), ("",), True, ({},)),
    )

    def predict(
        self, carried: Trajectories, steps: list[int], **given: float
    ) -> dict[str, Any]:
        sums = np.ones((len(steps), len(Sum), 1))
        for name, value in given.items():
            sums[:, Sum[name.upper()]] = value
        state = GroupState(lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99)
        named = LayerSums.of(np.array([16]), sums)
        settings = Settings([(state,)] * len(steps))
        return carried.predict(np.array(steps), settings, named)

    def test_a_step_is_taken_for_each_that_went_by(self) -> None:
        carried = Trajectories(self.SUBJECT)
        first = self.predict(carried, [0, 3])["traj_weight_norm"][:, 0]
        last = self.predict(carried, [5, LONGEST_GAP])["traj_weight_norm"][:, 0]
        squares = [1.0]
        for _ in range(LONGEST_GAP):
            squares.append((1 - 1e-4) ** 2 * squares[-1] + 16e-6)
        expected = np.sqrt(np.array(squares)[[0, 3, 5, LONGEST_GAP]])
        np.testing.assert_allclose([*first, *last], expected, rtol=1e-9)

    def test_a_gap_too_long_ends_it_and_is_noted(self) -> None:
        carried = Trajectories(self.SUBJECT)
        assert np.isfinite(self.predict(carried, [0, 1])["traj_weight_norm"]).all()
        found = self.predict(carried, [LONGEST_GAP + 2])["traj_weight_norm"]
        assert np.isnan(found).all()
        assert np.isnan(self.predict(carried, [LONGEST_GAP + 3])["traj_weight_norm"])
        assert [p for p in carried.problems if "group 0: 10001 steps" in p]

    def test_an_infinite_gradient_is_not_believed(self) -> None:
        carried = Trajectories(self.SUBJECT)
        self.predict(carried, [0])
        found = self.predict(carried, [1], grad_sq=np.inf)
        assert np.isfinite(found["traj_weight_norm"]).all()
        assert not carried.problems
