"""The effective weight decay predicts where scale-sensitive weights settle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

import dynoscope
from dynoscope import theory
from dynoscope.optim import Lion, OrtSepNorm, SepNorm
from tests.networks import OPTIMIZERS, MixedNet, train
from tests.systems import Array


class NoisyBowl(nn.Module):
    """Gradient pull * w + noise: not scale-invariant, and of known pull."""

    def __init__(self, pull: float) -> None:
        super().__init__()
        self.pull = pull
        self.weight = nn.Parameter(0.05 * torch.randn(32, 64))

    def forward(self) -> Tensor:
        noise = (torch.randn_like(self.weight) * self.weight).sum()
        return noise + self.pull / 2 * self.weight.square().sum()


def settle(kind: str, pull: float, folder: Path, steps: int) -> dynoscope.Run:
    torch.manual_seed(0)
    model = NoisyBowl(pull)
    classes: dict[str, type[torch.optim.Optimizer]] = {
        "sgdm": torch.optim.SGD, "adamw": torch.optim.AdamW,
        "adam_l2": torch.optim.Adam, "lion": Lion, "sepnorm": SepNorm,
        "ortsepnorm": OrtSepNorm, "adamw, eps": torch.optim.AdamW,
    }  # fmt: skip
    settings: dict[str, dict[str, object]] = {
        "sgdm": {"lr": 2e-3, "momentum": 0.9, "weight_decay": 0.5},
        "adamw": {"lr": 3e-3, "betas": (0.9, 0.99), "weight_decay": 1.0},
        "adamw, eps": {"lr": 3e-3, "betas": (0.9, 0.99), "weight_decay": 1.0, "eps": 1},
        "adam_l2": {"lr": 3e-3, "betas": (0.9, 0.99), "weight_decay": 0.5},
        "lion": {"lr": 1e-3, "weight_decay": 1.0},
        "sepnorm": {"lr": 1e-3, "weight_decay": 1.0},
        "ortsepnorm": {"lr": 1e-2, "weight_decay": 1.0},
    }
    optimizer = classes[kind](model.parameters(), **settings[kind])  # type: ignore[arg-type]
    with dynoscope.watch(
        model, optimizer, run=folder, every=1, neurons=False, strict=True, quiet=True
    ):
        for _ in range(steps):
            model().backward()
            optimizer.step()
            optimizer.zero_grad()
    return dynoscope.open_run(folder)


@pytest.mark.parametrize(
    ("kind", "pull", "tolerance"),
    [
        ("sgdm", 1.0, 0.02),
        ("sgdm", -0.2, 0.02),
        ("adamw", 1.0, 0.02),
        ("adamw", -0.2, 0.02),
        ("adamw, eps", 1.0, 0.02),  # as large as the gradients: updates are half
        ("adam_l2", 1.0, 0.05),
        ("lion", 0.15, 0.08),
        ("sepnorm", 0.15, 0.08),
    ],
)
def test_where_weights_settle(
    kind: str, pull: float, tolerance: float, tmp_path: Path
) -> None:
    frame = settle(kind, pull, tmp_path / "run", steps=2000).layers(steps=(700, 2000))
    means = frame.select_dtypes("number").mean()
    weight_norm, turned = means["weight_norm"], means["angular_update"]
    plain = weight_norm / means["pred_weight_norm"]
    assert abs(plain - 1) > 0.09  # the decay alone does not explain it
    found = weight_norm / means["pred_effective_weight_norm"]
    assert found == pytest.approx(1, abs=tolerance)
    found = turned / means["pred_effective_angular_update"]
    assert found == pytest.approx(1, abs=tolerance)
    if kind in ("sgdm", "adamw"):  # there the share is the pull itself
        share = means["effective_weight_decay"] - means["weight_decay"]
        assert share == pytest.approx(pull, abs=0.05)


@pytest.mark.parametrize("kind", ["sgdm", "adamw", "adam_l2", "lion"])
def test_means_and_predictions_spelled_out(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = MixedNet()
    optimizer = OPTIMIZERS[kind](model)
    steps, layer = 6, "project.weight"
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", strict=True, quiet=True
    ):
        train(model, optimizer, steps)
    frame = dynoscope.open_run(tmp_path / "run").layers(layer=layer)
    weight = frame["weight_norm"].to_numpy(np.float64)
    grad, size = frame["grad_l2"], frame["grad_l2"]
    cosine, beta1, beta2 = frame["weight_grad_cos"], 0.9, 0.99
    if kind == "adamw":
        size, cosine = frame["scaled_grad_norm"], frame["weight_scaled_grad_cos"]
    if kind == "lion":
        noise_sq = (1 - beta1) ** 2 + beta1**2 * (1 - beta2) ** 2 / (1 - beta2**2)
        size = np.sqrt(2 / np.pi * frame["numel"] / noise_sq)
    share = running(weight * size * cosine) / running(weight**2)
    effective = frame["weight_decay"] + share
    np.testing.assert_allclose(
        frame["effective_weight_decay"], effective, rtol=1e-4, atol=1e-7
    )
    wanted = theory.equilibrium(
        kind,
        numel=frame["numel"],
        lr=frame["lr"],
        weight_decay=np.maximum(effective, 0),
        momentum=0.9,
        betas=(0.9, 0.99 if kind == "lion" else 0.999),
        effective_grad_sq=running((weight * grad) ** 2),
    )
    update_error = np.ones(steps)  # what of the squared update theory did not foresee
    if kind == "adamw":
        update_error = running(frame["scaled_grad_norm"] ** 2) / frame["numel"]
    norm = wanted.weight_norm * np.sqrt(update_error)
    for name, values in (
        ("weight_norm", norm), ("angular_update", wanted.angular_update)
    ):  # fmt: skip
        values = np.where(effective > 0, values, np.nan)
        found = frame[f"pred_effective_{name}"]
        np.testing.assert_allclose(found, values, rtol=1e-3)


def running(values: ArrayLike) -> Array:
    """A mean whose weights fall by .99 a step, spelled out."""
    series = np.asarray(values, np.float64)
    return np.array(
        [
            np.average(series[: t + 1], weights=0.99 ** np.arange(t, -1, -1))
            for t in range(len(series))
        ]
    )


def test_updates_at_right_angles_leave_the_decay_as_it_is(tmp_path: Path) -> None:
    frame = settle("ortsepnorm", 3.0, tmp_path / "run", steps=400).layers()
    assert (frame["effective_weight_decay"] == 1.0).all()
    last = frame[frame["step"] >= 300]
    found = last["weight_norm"] / last["pred_effective_weight_norm"]
    assert found.mean() == pytest.approx(1, abs=0.01)


def test_no_prediction_where_weights_grow(tmp_path: Path) -> None:
    frame = settle("adamw", -30.0, tmp_path / "run", steps=40).layers(steps=(20, 40))
    assert (frame["effective_weight_decay"] < 0).all()
    assert frame["pred_effective_weight_norm"].isna().all()
    assert frame["pred_weight_norm"].notna().all()


def test_unknown_optimizers_have_none(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = torch.optim.Adagrad(model.parameters())
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        train(model, optimizer, 2)
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["effective_weight_decay"].isna().all()
    assert frame["scaled_grad_norm"].isna().all()


def test_a_roll_up_weighs_layers_by_their_norm(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        train(model, optimizer, 3)
    run = dynoscope.open_run(tmp_path / "run")
    parts = run.layers(["weight_norm", "effective_weight_decay"]).fillna(0.0)
    for step, rows in parts.groupby("step"):
        weights = rows["weight_norm"] ** 2
        wanted = np.average(rows["effective_weight_decay"], weights=weights)
        found = run.layers("effective_weight_decay", "*", int(str(step)))
        assert found["effective_weight_decay"].item() == pytest.approx(wanted, rel=1e-5)
