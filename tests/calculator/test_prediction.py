import math

import numpy as np
import pytest

import dynoscope
from dynoscope import theory
from dynoscope.calculator import predict
from dynoscope.errors import ScheduleError, TheoryError


def adamw(**settings: object) -> dynoscope.Prediction:
    given = {"shape": (64, 32), "lr": 3e-3, "weight_decay": 0.1, "steps": 500}
    return predict("adamw", **{**given, **settings})  # type: ignore[arg-type]


def test_is_what_theory_says() -> None:
    found = adamw(warmup=50, schedule="cosine")
    hyper = {"numel": 2048, "weight_decay": 0.1, "betas": (0.9, 0.999)}
    wanted = theory.equilibrium("adamw", lr=3e-3, **hyper)  # type: ignore[arg-type]
    assert found.equilibrium == wanted
    rows = found.trajectory
    at = theory.equilibrium("adamw", lr=rows["lr"], **hyper)  # type: ignore[arg-type]
    np.testing.assert_array_equal(rows["pred_weight_norm"], at.weight_norm)
    way = theory.trajectory(
        "adamw",
        lr=rows["lr"],
        start_weight_norm=math.sqrt(64 / 3),
        **hyper,  # type: ignore[arg-type]
    )
    np.testing.assert_array_equal(rows["weight_norm"], way.weight_norm)


def test_starts_at_the_norm_of_torchs_default() -> None:
    torch = pytest.importorskip("torch")
    for layer in (torch.nn.Linear(300, 200), torch.nn.Conv2d(30, 50, 3)):
        found = adamw(shape=tuple(layer.weight.shape))
        norm = layer.weight.detach().norm().item()
        assert found.settings["start_weight_norm"] == pytest.approx(norm, rel=0.02)


@pytest.mark.parametrize("other", ["lion", "sepnorm", "ortsepnorm", "adamw"])
@pytest.mark.parametrize("keep", ["weight_norm", "update_rms"])
def test_another_optimizer_keeps_the_rotation(other: str, keep: str) -> None:
    now = adamw()
    found = now.to(other, keep=keep)  # type: ignore[arg-type]
    for name in ("angular_update", keep):
        assert getattr(found.equilibrium, name) == pytest.approx(
            getattr(now.equilibrium, name), rel=1e-6
        )
    assert len(found.trajectory) == len(now.trajectory)


def test_a_larger_batch_turns_more_in_fewer_steps() -> None:
    now = adamw(warmup=40)
    found = now.to(batch_factor=4)
    assert found.equilibrium.angular_update == pytest.approx(
        2 * now.equilibrium.angular_update, rel=1e-6
    )
    assert len(found.trajectory) == 125
    assert found.settings["warmup"] == 10


def test_betas_of_ones_own_are_kept_or_given() -> None:
    now = adamw(betas=(0.95, 0.98))
    assert now.to(batch_factor=2).settings["betas"] == (0.95, 0.98)
    assert now.to("lion").settings["betas"] == (0.9, 0.99)
    assert now.to("lion", betas=(0.95, 0.98)).settings["betas"] == (0.95, 0.98)


def test_gradient_noise_of_sgd_falls_with_the_batch() -> None:
    now = predict(
        "sgdm",
        shape=(64, 32),
        lr=0.1,
        weight_decay=1e-3,
        momentum=0.9,
        effective_grad_sq=4.0,
        steps=100,
    )
    found = now.to(batch_factor=2)
    assert found.settings["effective_grad_sq"] == 2
    assert found.settings["momentum"] == 0.9
    assert found.equilibrium.weight_norm == pytest.approx(
        float(now.equilibrium.weight_norm), rel=1e-6
    )


def test_without_decay_there_is_no_equilibrium() -> None:
    found = adamw(weight_decay=0.0)
    assert np.isinf(found.equilibrium.weight_norm)
    assert np.isfinite(found.trajectory["weight_norm"]).all()
    with pytest.raises(TheoryError, match="no equilibrium to aim at"):
        found.to("lion")


def test_bad_input() -> None:
    with pytest.raises(TheoryError, match="no theory for optimizer 'adam'"):
        predict("adam", shape=(2, 2), lr=0.1, weight_decay=0.1)
    with pytest.raises(
        TheoryError, match=r"shape must be positive numbers, got \(2, 0\)"
    ):
        adamw(shape=(2, 0))
    with pytest.raises(ScheduleError, match="warmup between 0 and steps"):
        adamw(warmup=501)
    with pytest.raises(ScheduleError, match="schedule is 'step'; it can be 'constant'"):
        adamw(schedule="step")
    with pytest.raises(TheoryError, match="needs effective_grad_sq"):
        predict("sgdm", shape=(2, 2), lr=0.1, weight_decay=0.1)
