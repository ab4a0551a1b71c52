"""Plateaus of normalized descent on random quadratics."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dynoscope.errors import TheoryError
from dynoscope.theory import quadratics

Array = NDArray[np.float64]
WEIGHTS, STARTS, STEPS, LR = 6, 400, 3000, 0.01
BLOCKS = [np.arange(2), np.arange(2, 6)]


def random_hessian(seed: int) -> Array:
    factor = np.random.default_rng(seed).normal(size=(WEIGHTS, WEIGHTS))
    hessian: Array = factor @ factor.T / WEIGHTS + 0.05 * np.eye(WEIGHTS)
    return hessian


def normgd(grad: Array) -> Array:
    return np.asarray(grad / np.linalg.norm(grad, axis=1, keepdims=True))


def sepnorm(grad: Array) -> Array:
    parts = [np.sqrt(len(b)) * normgd(grad[:, b]) for b in BLOCKS]
    return np.concatenate(parts, axis=1)


STEP: dict[str, Callable[[Array], Array]] = {
    "lion": np.sign, "normgd": normgd, "sepnorm": sepnorm
}  # fmt: skip


def plateaus(optimizer: str, hessian: Array) -> Array:
    """L_max of runs from many starts."""
    w = np.random.default_rng(7).normal(size=(STARTS, WEIGHTS))
    losses = []
    for step in range(STEPS):
        grad = w @ hessian
        if step >= STEPS - 200:
            losses.append((w * grad).sum(axis=1) / 2)
        w = w - LR * STEP[optimizer](grad)
    return quadratics.plateau(np.array(losses))


@pytest.mark.parametrize("optimizer", STEP)
@pytest.mark.parametrize("seed", range(3))
def test_a_plateau_bounds_the_sharpness(optimizer: str, seed: int) -> None:
    hessian = random_hessian(seed)
    loss_max = plateaus(optimizer, hessian)
    sharpness = np.array(quadratics.sharpness(optimizer, hessian, BLOCKS))
    found = quadratics.sharpness_bound(loss_max.mean(), np.array(LR))
    assert found >= sharpness
    assert loss_max.mean() >= quadratics.loss_bound(sharpness, np.array(LR))


def test_the_bounds_are_tight() -> None:
    """NormGD's along the sharpest direction; sign descent's across a diagonal one."""
    hessian = random_hessian(0)
    sharpness = np.array(quadratics.sharpness("normgd", hessian))
    floor = quadratics.loss_bound(sharpness, np.array(LR))
    assert plateaus("normgd", hessian).min() == pytest.approx(floor, rel=0.01)
    diagonal = np.diag(np.arange(1.0, 7.0))
    corner = LR / 2 * np.ones((1, 6))
    after = corner - LR * np.sign(corner @ diagonal)
    losses = np.array([(w @ diagonal @ w.T).item() / 2 for w in (corner, after)])
    sharpness = np.array(quadratics.sharpness("lion", diagonal))
    found = quadratics.sharpness_bound(quadratics.plateau(losses), np.array(LR))
    assert found == pytest.approx(sharpness)


def test_a_single_run_of_sepnorm_may_end_lower() -> None:
    hessian = random_hessian(2)
    sharpness = np.array(quadratics.sharpness("sepnorm", hessian, BLOCKS))
    floor = quadratics.loss_bound(sharpness, np.array(LR))
    assert plateaus("sepnorm", hessian).min() < floor


def test_blocks_of_one_are_lion_and_one_of_all_is_normgd() -> None:
    hessian = random_hessian(1)
    single = [np.array([i]) for i in range(WEIGHTS)]
    found = quadratics.sharpness("sepnorm", hessian, single)
    assert found == pytest.approx(quadratics.sharpness("lion", hessian))
    found = quadratics.sharpness("sepnorm", hessian, [np.arange(WEIGHTS)])
    whole = quadratics.sharpness("normgd", hessian)
    assert found == pytest.approx(WEIGHTS * whole)


def test_what_has_no_bound_says_so() -> None:
    with pytest.raises(TheoryError, match="no bound on a quadratic for 'adamw'"):
        quadratics.sharpness("adamw", np.eye(2))
    with pytest.raises(TheoryError, match="'sepnorm' needs blocks"):
        quadratics.sharpness("sepnorm", np.eye(2))
