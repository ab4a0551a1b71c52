"""The recursions against the covariance matrix of (w, m), and their fixed points."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynoscope.theory import equilibrium, moments
from dynoscope.theory.moments import Law, Moments, Setting, Settled

Array = NDArray[np.float64]

NUMEL, GRAD_SQ = 64.0, 3e-4
FIRST = Moments(*map(np.array, (2.0, 0.0, 0.0, 0.0, 0.0)))


def setting(**given: float) -> Setting:
    named = dict.fromkeys(Setting._fields, 0.0) | {"numel": NUMEL, "gain": 1.0} | given
    return Setting(**{name: np.asarray(value) for name, value in named.items()})


def linear_step(of: Setting, kind: str, t: int, norms: Array, rate: float) -> Array:
    """The matrix that takes (w, m, g) to (w', m')."""
    w, m, g = np.eye(3)
    beta1, beta2, lr = of.beta1, of.beta2, of.lr
    if kind == "sgdm":
        fresh = 1 - of.dampening if beta1 > 0 and t > 0 else 1.0
        after = beta1 * m + fresh * (g + of.l2 * w)
        step = (g + of.l2 * w) + beta1 * after if of.nesterov else after
        return np.stack([w - lr * step, after])
    if kind == "adam":
        after = beta1 * m + (1 - beta1) * (g + of.l2 * w)
        return np.stack([(1 - of.decay) * w - rate * after, after])
    mixed = beta1 * m + (1 - beta1) * g
    length = np.sqrt(mixed @ norms @ mixed / NUMEL)
    after = beta2 * m + (1 - beta2) * g
    return np.stack([(1 - of.decay) * w - lr / length * mixed, after])


def covariances(of: Setting, kind: str, steps: int) -> list[Array]:
    """E[(w, m)(w, m)^T] before each step, and the step's E[<w, w'>]."""
    found, square, second = [], np.diag([2.0, 0.0]), 0.0
    for t in range(steps):
        full = np.zeros((3, 3))
        full[:2, :2], full[2, 2] = square, GRAD_SQ / square[0, 0]
        second = of.beta2 * second + (1 - of.beta2) * (
            full[2, 2] + of.l2**2 * square[0, 0]
        )
        unbiased = second / (1 - of.beta2 ** (t + 1)) / NUMEL
        rate = of.lr / (1 - of.beta1 ** (t + 1)) / np.sqrt(unbiased)
        step = linear_step(of, kind, t, full, float(rate))
        after = step @ full @ step.T
        kept = (step @ full)[0, 0]
        cosine = kept / np.sqrt(square[0, 0] * after[0, 0])
        found.append(np.array([square[0, 0], square[1, 1], square[0, 1], cosine]))
        square = after
    return found


@pytest.mark.parametrize(
    ("kind", "law"),
    [("sgdm", moments.sgdm), ("adam", moments.adam), ("sep", moments.interpolated)],
)
@given(
    st.floats(1e-4, 0.05),
    st.floats(0, 0.5),
    st.tuples(st.floats(0, 0.99), st.floats(0, 0.999)),
    st.floats(0, 0.9),
    st.booleans(),
)
def test_moments_are_those_of_the_linear_recursion(
    kind: str,
    law: Law,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    dampening: float,
    nesterov: bool,
) -> None:
    of = setting(
        lr=lr,
        decay=lr * weight_decay if kind == "sep" else 0.0,
        l2=0.0 if kind == "sep" else weight_decay * 1e-2,
        beta1=betas[0],
        beta2=0.0 if kind == "sgdm" else betas[1],
        dampening=dampening,
        nesterov=nesterov,
    )
    now = FIRST
    for expected in covariances(of, kind, 40):
        assert now.weight_sq == pytest.approx(expected[0], rel=1e-9)
        assert now.momentum_sq == pytest.approx(expected[1], rel=1e-9)
        scale = np.sqrt(expected[0] * expected[1])
        assert now.weight_momentum == pytest.approx(expected[2], abs=1e-9 * scale)
        now, angle = law(now, of, np.asarray(GRAD_SQ))
        assert np.cos(angle) == pytest.approx(expected[3], abs=1e-9)


def run(
    law: Law, of: Setting, steps: int, grad_sq: Any = GRAD_SQ
) -> tuple[Moments, Any]:
    now, angle = FIRST, None
    for _ in range(steps):
        now, angle = law(now, of, np.asarray(grad_sq))
    return now, angle


BETAS = {"beta1": 0.9, "beta2": 0.99}


@pytest.mark.parametrize(
    ("optimizer", "law", "given", "tolerance"),
    [
        ("adamw", moments.adamw, {"lr": 1e-2, "decay": 5e-3, **BETAS}, 1e-9),
        ("sepnorm", moments.interpolated, {"lr": 1e-3, "decay": 5e-3, **BETAS}, 1e-9),
        ("normgd", moments.normgd, {"lr": 1e-2, "decay": 5e-3, **BETAS}, 1e-9),
        ("ortsepnorm", moments.orthogonal, {"lr": 1e-3, "decay": 5e-3}, 1e-9),
        ("adam_l2", moments.adam, {"lr": 1e-3, "l2": 1e-2, **BETAS}, 0.01),
        ("sgdm", moments.sgdm, {"lr": 0.5, "l2": 5e-3, "beta1": 0.9}, 0.02),
        (
            "sgdm",
            moments.sgdm,
            {"lr": 0.5, "l2": 5e-3, "beta1": 0.9, "nesterov": True},
            0.02,
        ),
    ],
)
def test_the_fixed_point_is_the_equilibrium(
    optimizer: str, law: Law, given: dict[str, Any], tolerance: float
) -> None:
    # formulas to first order in the decay of a step agree to that order only
    now, angle = run(law, setting(**given), 8000)
    found = equilibrium(
        optimizer,
        numel=NUMEL,
        lr=given["lr"],
        weight_decay=given.get("decay", 0) / given["lr"] or given["l2"],
        betas=(0.9, 0.99),
        momentum=0.9,
        nesterov=given.get("nesterov", False),
        dampening=given.get("dampening", 0.0),
        effective_grad_sq=GRAD_SQ,
    )
    assert np.sqrt(now.weight_sq) == pytest.approx(found.weight_norm, rel=tolerance)
    assert angle == pytest.approx(found.angular_update, rel=tolerance)


def test_layers_of_normgd_share_one_step() -> None:
    sizes = np.array([1e-4, 4e-4, np.nan])
    of = setting(lr=1e-2, decay=5e-3, **BETAS)
    now, _ = run(moments.normgd, of, 8000, sizes)
    whole, _ = run(moments.normgd, of, 8000)
    shares = now.weight_sq / whole.weight_sq
    np.testing.assert_allclose(shares, [1 / 3, 2 / 3, np.nan], rtol=1e-9)


@pytest.mark.parametrize(
    ("law", "settled", "given"),
    [
        (moments.adam, moments.adam_settled, {"lr": 1e-3, "decay": 5e-3, **BETAS}),
        (moments.adamw, moments.adam_settled, {"lr": 1e-3, "decay": 5e-3, **BETAS}),
        (moments.adam, moments.adam_settled, {"lr": 1e-3, "l2": 1e-5, **BETAS}),
        (
            moments.interpolated,
            moments.interpolated_settled,
            {"lr": 1e-3, "decay": 5e-3, "gain": 0.6, **BETAS},
        ),
        (
            moments.normgd,
            moments.normgd_settled,
            {"lr": 1e-3, "decay": 5e-3, **BETAS},
        ),
        (
            moments.sgdm,
            moments.sgdm_settled,
            {"lr": 0.1, "l2": 1e-3, "beta1": 0.9, "dampening": 0.5},
        ),
        (
            moments.sgdm,
            moments.sgdm_settled,
            {"lr": 0.1, "l2": 1e-3, "beta1": 0.9, "nesterov": True},
        ),
    ],
)
def test_settled_moments_stay_as_long_as_the_norm_is_held(
    law: Law, settled: Settled, given: dict[str, Any]
) -> None:
    of, grad_sq = setting(**given), np.asarray(GRAD_SQ)
    held = FIRST
    for _ in range(4000):
        held = law(held, of, grad_sq)[0]._replace(weight_sq=FIRST.weight_sq)
    found = settled(FIRST.weight_sq, of, grad_sq)
    assert found.momentum_sq == pytest.approx(held.momentum_sq, rel=0.02)
    assert found.weight_momentum == pytest.approx(held.weight_momentum, rel=0.02)
    if law in (moments.adam, moments.adamw):
        assert found.grad_sq == pytest.approx(held.grad_sq, rel=1e-9)


def test_without_gradient_nothing_but_the_decay_moves() -> None:
    of = setting(lr=1e-2, decay=5e-3, **BETAS)
    for law in (moments.adam, moments.interpolated, moments.normgd):
        now, angle = law(FIRST, of, np.zeros(()))
        assert now.weight_sq == pytest.approx(2 * 0.995**2)
        assert angle == 0
