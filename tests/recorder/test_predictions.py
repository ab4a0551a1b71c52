"""Recorded predictions are theory's, from the hyperparameters of that very step."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dynoscope
from dynoscope import theory
from dynoscope.optim import Lion
from tests.networks import MixedNet, train

STEPS = 5


def record(
    optimizer: torch.optim.Optimizer, model: MixedNet, folder: Path
) -> dynoscope.Run:
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
    with dynoscope.watch(model, optimizer, run=folder, strict=True, quiet=True):
        train(model, optimizer, STEPS, lambda loss: schedule.step())
    return dynoscope.open_run(folder)


@pytest.mark.parametrize("kind", ["adamw", "lion"])
def test_decoupled_optimizers(kind: str, tmp_path: Path) -> None:
    model = MixedNet()
    cls = {"adamw": torch.optim.AdamW, "lion": Lion}[kind]
    optimizer = cls(model.parameters(), lr=1e-2, weight_decay=0.5, betas=(0.9, 0.99))
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
