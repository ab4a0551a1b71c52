"""A rotational optimizer's layers turn by the recorded angle, at the recorded norm."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dynoscope
from dynoscope import theory
from dynoscope.optim import Lion, Rotational
from tests.networks import MixedNet, train

STEPS = 40


def record(folder: Path, **options: Any) -> dynoscope.Run:
    torch.manual_seed(0)
    model = MixedNet()
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.5)
    optimizer = Rotational(inner, **options)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
    with dynoscope.watch(model, optimizer, run=folder, strict=True, quiet=True):
        train(model, optimizer, STEPS, lambda loss: schedule.step())
    return dynoscope.open_run(folder)


def split(run: dynoscope.Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the layers that turn, and of the others."""
    turned = [layer["name"] for layer in run.manifest["layers"] if layer["rotational"]]
    frame = run.layers()
    inside = frame["layer"].isin(turned)
    return frame[inside], frame[~inside]


def test_norm_and_angle_are_as_recorded(tmp_path: Path) -> None:
    run = record(tmp_path / "run", center=False)
    assert run.manifest["optimizer"]["name"] == "Rotational(AdamW)"
    turned, rest = split(run)
    assert set(turned["layer"]) == {
        "stem.0.weight",
        "embedding.weight",
        "project.weight",
    }
    np.testing.assert_allclose(
        turned["weight_norm"], turned["pred_weight_norm"], rtol=1e-6
    )
    lr = 1e-2 * 0.97 ** turned["step"]
    wanted = theory.equilibrium(
        "adamw", numel=1, lr=lr, weight_decay=0.5, betas=(0.9, 0.999)
    )
    angle = turned["pred_angular_update"]
    np.testing.assert_allclose(angle, wanted.angular_update, rtol=1e-6)
    ratio = turned["angular_update"] / angle
    first = ratio[turned["step"] == 0]
    np.testing.assert_allclose(first, 1, rtol=0.01)
    assert (turned["pred_half_life"] == 0).all()
    assert (turned["traj_angular_update"] == angle).all()
    assert turned["pred_effective_weight_norm"].isna().all()
    assert turned["outside_share"].isna().all()
    assert rest["pred_half_life"].gt(0).all()


def test_an_angle_of_ones_own(tmp_path: Path) -> None:
    model = MixedNet()
    inner = torch.optim.RMSprop(model.parameters())
    optimizer = Rotational(inner, eta_r=0.01)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        train(model, optimizer, 3)
    turned, rest = split(dynoscope.open_run(tmp_path / "run"))
    assert turned["pred_angular_update"].to_numpy() == pytest.approx(0.01)
    assert rest["pred_angular_update"].isna().all()


def test_rows_that_turn_apart_have_no_angle_of_the_layer(tmp_path: Path) -> None:
    model = MixedNet()
    inner = Lion(model.parameters(), weight_decay=0.1)
    optimizer = Rotational(inner, factor=lambda weight: torch.ones(len(weight)))
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        train(model, optimizer, 3)
    turned, _ = split(dynoscope.open_run(tmp_path / "run"))
    assert turned["pred_angular_update"].isna().all()
    assert turned["angular_update"].gt(0).all()
