"""Recorded predictions are theory's, from the hyperparameters of that very step."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dynoscope
from dynoscope import theory
from dynoscope.optim import L1, Lion, LionK, Lp, NormGD, OrtSepNorm, SepNorm
from tests.networks import MixedNet, train

STEPS = 5


def record(
    optimizer: torch.optim.Optimizer, model: MixedNet, folder: Path
) -> dynoscope.Run:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    with dynoscope.watch(model, optimizer, run=folder, strict=True, quiet=True):
        train(model, optimizer, STEPS, lambda loss: schedule.step())
    return dynoscope.open_run(folder)


DECOUPLED: dict[str, tuple[str, Callable[..., torch.optim.Optimizer]]] = {
    "AdamW": ("adamw", torch.optim.AdamW),
    "Lion": ("lion", Lion),
    "LionK": ("lion", partial(LionK, k=L1())),
    "SepNorm": ("sepnorm", SepNorm),
    "SepNorm, rows": ("sepnorm", partial(SepNorm, per="row")),
    "OrtSepNorm": ("ortsepnorm", OrtSepNorm),
}


@pytest.mark.parametrize("name", DECOUPLED)
def test_decoupled_optimizers(name: str, tmp_path: Path) -> None:
    model = MixedNet()
    kind, make = DECOUPLED[name]
    optimizer = make(model.parameters(), lr=1e-2, weight_decay=0.5, betas=(0.9, 0.99))
    frame = record(optimizer, model, tmp_path / "run").layers()
    wanted = theory.equilibrium(
        kind,
        numel=frame["numel"],
        lr=1e-2 * 0.7 ** frame["step"],
        weight_decay=0.5,
        betas=(0.9, 0.99),
    )
    for name in theory.Equilibrium._fields:
        np.testing.assert_allclose(
            frame[f"pred_{name}"], getattr(wanted, name), rtol=1e-6
        )


@pytest.mark.parametrize("kind", ["sgdm", "adam_l2"])
def test_optimizers_that_need_the_effective_gradient(kind: str, tmp_path: Path) -> None:
    model = MixedNet()
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True, weight_decay=1e-2)
        if kind == "sgdm"
        else torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-2)
    )
    run = record(optimizer, model, tmp_path / "run")
    frame = run.layers(layer="project.weight")
    squares = (frame["grad_l2"] * frame["weight_norm"]).to_numpy(np.float64) ** 2
    # A mean whose weights fall by .99 a step, spelled out.
    means = [
        np.average(squares[: t + 1], weights=0.99 ** np.arange(t, -1, -1))
        for t in range(STEPS)
    ]
    wanted = theory.equilibrium(
        kind,
        numel=frame["numel"],
        lr=frame["lr"],
        weight_decay=1e-2,
        momentum=0.9,
        nesterov=True,
        betas=(0.9, 0.999),
        effective_grad_sq=means,
    )
    for name in theory.Equilibrium._fields:
        np.testing.assert_allclose(
            frame[f"pred_{name}"], getattr(wanted, name), rtol=1e-5
        )


@pytest.mark.parametrize("exclude", [None, "stem"])
def test_layers_share_the_norm_of_normgd(exclude: str | None, tmp_path: Path) -> None:
    model, folder = MixedNet(), tmp_path / "run"
    hyper: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.5}
    optimizer = NormGD(model.parameters(), **hyper)
    with dynoscope.watch(
        model, optimizer, run=folder, exclude=exclude, strict=True, quiet=True
    ):
        train(model, optimizer, STEPS)
    run = dynoscope.open_run(folder)
    wanted = theory.equilibrium("normgd", numel=1, **hyper)
    frame = run.layers()
    for name in ("angular_update", "half_life"):
        np.testing.assert_allclose(
            frame[f"pred_{name}"], getattr(wanted, name), rtol=1e-6
        )
    if exclude:
        assert frame["pred_weight_norm"].isna().all()
        assert any("not watched" in problem for problem in run.problems)
        return
    first = frame[frame["step"] == 0]
    size = first["grad_l2"] * first["weight_norm"]
    norms = wanted.weight_norm * np.sqrt(size / size.sum())
    np.testing.assert_allclose(first["pred_weight_norm"], norms, rtol=1e-5)
    whole = run.layers(layer="*")
    for name in ("weight_norm", "update_rms"):
        np.testing.assert_allclose(
            whole[f"pred_{name}"], getattr(wanted, name), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (partial(LionK, k=Lp(1.5)), "LionK with Lp(p=1.5)"),
        (partial(SepNorm, per="group"), 'per="group" shares one step'),
        (partial(OrtSepNorm, per="group"), 'per="group" shares one step'),
    ],
)
def test_what_has_no_prediction_says_why(
    make: Callable[..., torch.optim.Optimizer], reason: str, tmp_path: Path
) -> None:
    model = MixedNet()
    run = record(make(model.parameters(), lr=1e-3), model, tmp_path / "run")
    assert reason in run.manifest["optimizer"]["reasons"][0]
    assert run.layers("pred_angular_update")["pred_angular_update"].isna().all()


def test_a_group_of_one_tensor_is_a_layer(tmp_path: Path) -> None:
    model = MixedNet()
    groups = [{"params": [param]} for param in model.parameters()]
    optimizer = SepNorm(groups, lr=1e-2, per="group")
    frame = record(optimizer, model, tmp_path / "run").layers()
    assert np.isfinite(frame["pred_weight_norm"]).all()


def test_without_weight_decay_there_is_no_equilibrium(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    frame = record(optimizer, model, tmp_path / "run").layers()
    assert np.isinf(frame["pred_weight_norm"]).all()
    assert np.isinf(frame["pred_half_life"]).all()
    assert (frame["pred_angular_update"] == 0).all()


def test_amsgrad_has_no_prediction_and_says_why(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    run = record(optimizer, model, tmp_path / "run")
    assert "amsgrad" in run.manifest["optimizer"]["reasons"][0]
    assert run.layers("pred_weight_norm")["pred_weight_norm"].isna().all()


def test_hyperparameters_out_of_range_are_a_noted_problem(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = Lion(model.parameters(), lr=1e-3, weight_decay=2e3)  # lr * decay > 1
    run = record(optimizer, model, tmp_path / "run")
    assert any("no prediction for group 0" in problem for problem in run.problems)
    assert run.layers()["angular_update"].notna().any()
