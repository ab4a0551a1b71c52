from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.errors import TheoryError
from dynoscope.optim import Lion, SepNorm
from dynoscope.theory import equilibrium
from dynoscope.theory.equilibrium import OPTIMIZERS
from dynoscope.theory.planning import convert, plan
from tests.systems import RandomWalk

HYPER: dict[str, Any] = {
    "numel": [16, 4096],
    "betas": (0.9, 0.99),
    "momentum": 0.9,
    "nesterov": [False, True],
    "dampening": [0.5, 0.0],
    "effective_grad_sq": [1.0, 1e-3],
}
ADAMW: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.5, "betas": (0.9, 0.99)}


@given(
    st.sampled_from(sorted(OPTIMIZERS)),
    st.floats(1e-6, 0.1),
    st.floats(1, 1e4),
    st.sampled_from(["weight_norm", "update_rms"]),
)
def test_the_plan_settles_where_it_was_meant_to(
    optimizer: str, angle: float, size: float, what: str
) -> None:
    found = plan(optimizer, angular_update=angle, **{what: size}, **HYPER)
    assert found.lr.shape == found.weight_decay.shape == (2,)
    there = equilibrium(
        optimizer, lr=found.lr, weight_decay=found.weight_decay, **HYPER
    )
    np.testing.assert_allclose(there.angular_update, angle, rtol=1e-9)
    np.testing.assert_allclose(getattr(there, what), size, rtol=1e-7)


def test_the_same_optimizer_is_converted_to_itself() -> None:
    for optimizer in sorted(OPTIMIZERS):
        now = equilibrium(optimizer, lr=1e-3, weight_decay=0.02, **HYPER)
        for keep in ("weight_norm", "update_rms"):
            found = convert(now, optimizer, keep=keep, **HYPER)
            np.testing.assert_allclose(found.lr, 1e-3, rtol=1e-6)
            np.testing.assert_allclose(found.weight_decay, 0.02, rtol=1e-6)


@pytest.mark.parametrize("batch_factor", [1, 4])
@pytest.mark.parametrize("optimizer", ["lion", "sepnorm", "sgdm"])
def test_rows_of_a_random_walk_turn_as_they_did(
    optimizer: str, batch_factor: int
) -> None:
    now = equilibrium("adamw", numel=64, **ADAMW)
    # gradients of one size, as one lr and decay for all rows of SGDM needs them
    grad_sq = RandomWalk(even=True).effective_grad_sq().mean()
    betas: dict[str, Any] = {"betas": (0.9, 0.99)}
    found = convert(
        now,
        optimizer,
        numel=64,
        batch_factor=batch_factor,
        effective_grad_sq=grad_sq,
        momentum=0.9,
        **betas,
    )
    make: Any = {
        "lion": partial(Lion, **betas),
        "sepnorm": partial(SepNorm, per="row", **betas),
        "sgdm": partial(torch.optim.SGD, momentum=0.9),
    }[optimizer]
    system = RandomWalk(even=True, batch=32 * batch_factor)
    system.rescale(np.full(64, now.weight_norm))
    settings = {"lr": float(found.lr), "weight_decay": float(found.weight_decay)}
    walk = system.run(partial(make, **settings), 1500).settled()
    turned = np.sqrt((walk.angular_update**2).mean() / batch_factor)
    norm = np.sqrt((walk.weight_norm**2).mean())
    assert turned == pytest.approx(float(now.angular_update), rel=0.05)
    assert norm == pytest.approx(float(now.weight_norm), rel=0.06)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"angular_update": 0}, "angular_update is 0 but must be positive"),
        ({"weight_norm": np.inf}, "weight_norm is inf"),
        ({"weight_norm": None}, "either weight_norm or update_rms"),
        ({"update_rms": 1}, "either weight_norm or update_rms"),
        ({"angular_update": 3}, "3 rad is faster than 'lion' can settle at"),
        ({"betas": None}, "'lion' needs betas"),
    ],
)
def test_what_cannot_be_planned(bad: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "angular_update": 0.01, "weight_norm": 1, "numel": 64, "betas": (0.9, 0.99)
    }  # fmt: skip
    with pytest.raises(TheoryError, match=message):
        plan("lion", **(good | bad))


def test_what_cannot_be_converted() -> None:
    now = equilibrium("adamw", numel=64, **ADAMW)
    with pytest.raises(TheoryError, match="keep is 'lr'"):
        convert(now, "ortsepnorm", numel=64, keep="lr")  # type: ignore[arg-type]
    with pytest.raises(TheoryError, match="batch_factor must be positive, got -1"):
        convert(now, "ortsepnorm", numel=64, batch_factor=-1)
    with pytest.raises(TheoryError, match="'adam_l2' needs effective_grad_sq"):
        convert(now, "adam_l2", numel=64, betas=(0.9, 0.99))
    huge: dict[str, Any] = {"angular_update": 0.1, "weight_norm": 1e-3}
    with pytest.raises(TheoryError, match=r"takes lr \* weight_decay = .* not below 1"):
        plan("adam_l2", effective_grad_sq=1, numel=16, betas=(0.9, 0.99), **huge)
    still = equilibrium("adamw", **(ADAMW | {"numel": 64, "weight_decay": 0}))
    with pytest.raises(TheoryError, match="no equilibrium to aim at"):
        convert(still, "ortsepnorm", numel=64)
