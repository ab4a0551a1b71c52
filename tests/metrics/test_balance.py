"""Spread of rotation: by brute force, and where theory says that it must be."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynoscope import theory
from dynoscope.metrics.balance import across, explained_share
from tests.systems import Array, RandomWalk

ANGLES = st.floats(1e-6, 3.0) | st.just(0.0) | st.just(float("nan"))


@given(st.lists(ANGLES, min_size=1, max_size=9), st.data())
def test_spread_follows_its_definition(
    angles: list[float], data: st.DataObject
) -> None:
    members = data.draw(
        st.lists(st.booleans(), min_size=len(angles), max_size=len(angles))
    )
    found = across([angles, angles], members)
    kept = [a for a, m in zip(angles, members, strict=True) if m and not np.isnan(a)]
    turning = [a for a in kept if a > 0]
    cv = np.std(kept) / np.mean(kept) if turning else np.nan
    log_std = np.std(np.log(turning)) if turning else np.nan
    for row in range(2):
        assert found.cv[row] == pytest.approx(cv, nan_ok=True, abs=1e-12)
        assert found.log_std[row] == pytest.approx(log_std, nan_ok=True, abs=1e-12)


def test_adamw_is_balanced_where_adam_with_l2_is_not() -> None:
    """Rows of one layer whose gradients differ in size; each settled beforehand.

    AdamW's rows differ by chance alone: their norms forget in 1 / (lr * decay) =
    200 steps, so that 1000 steps are few. Seen: .02 and .83.
    """
    betas, spread = (0.9, 0.99), {}
    for kind, optimizer, lr, decay in (
        ("adamw", torch.optim.AdamW, 1e-2, 0.5),
        ("adam_l2", torch.optim.Adam, 1e-3, 1e-2),
    ):
        system = RandomWalk()
        settled = theory.equilibrium(
            kind,
            numel=system.numel,
            lr=lr,
            weight_decay=decay,
            betas=betas,
            effective_grad_sq=system.effective_grad_sq(),
        )
        system.rescale(settled.weight_norm)
        make = partial(optimizer, lr=lr, weight_decay=decay, betas=betas)
        walk = system.run(make, steps=1500).settled()
        spread[kind] = across(walk.angular_update.mean(axis=0))
    assert spread["adamw"].cv < 0.03
    assert spread["adam_l2"].cv > 0.3
    assert spread["adam_l2"].log_std > 10 * spread["adamw"].log_std


def turning_bowl(pull: Array, steps: int = 3000) -> tuple[Array, Array]:
    """Mean angle and lambda_err of rows whose gradient is noise plus pull * w.

    AdamW with lr .003 and weight decay 1, from a start near equilibrium.
    """
    torch.manual_seed(0)
    pulls = torch.tensor(pull, dtype=torch.float32).unsqueeze(1)
    weight = torch.nn.Parameter(0.04 * torch.randn(len(pull), 128))
    optimizer = torch.optim.AdamW([weight], 3e-3, (0.9, 0.99), weight_decay=1.0)
    angles, radial, squares = (np.zeros(len(pull)) for _ in range(3))
    for step in range(steps):
        weight.grad = pulls * weight.detach() + torch.randn(weight.shape)
        before = weight.detach().clone().double()
        optimizer.step()
        if step < steps // 3:
            continue
        after, state = weight.detach().double(), optimizer.state[weight]
        root = (state["exp_avg_sq"] / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
        radial += (before * (weight.grad / root)).sum(1).numpy()
        squares += before.square().sum(1).numpy()
        cosine = torch.nn.functional.cosine_similarity(before, after)
        angles += torch.arccos(cosine).numpy()
    return angles, 1 + radial / squares


def test_imbalance_is_explained_by_the_effective_decay() -> None:
    angles, decay_error = turning_bowl(np.linspace(-0.3, 3.0, 24))
    assert across(angles).cv > 0.2
    share, (slope,) = explained_share(angles, np.log(decay_error))
    assert share > 0.97
    assert slope == pytest.approx(0.5, abs=0.05)
    noise = np.random.default_rng(0).normal(size=24)
    assert explained_share(angles, noise)[0] < 0.3


@given(st.integers(0, 99), st.integers(1, 3), st.integers(6, 30))
def test_the_fit_is_least_squares(seed: int, causes: int, weights: int) -> None:
    rng = np.random.default_rng(seed)
    x, angles = rng.normal(size=(causes, weights)), rng.lognormal(size=weights)
    angles[0] = np.nan  # a weight that is left out
    share, coefficients = explained_share(angles, *x)
    design = np.column_stack([np.ones(weights - 1), *x[:, 1:]])
    target = np.log(angles[1:])
    wanted = np.linalg.solve(design.T @ design, design.T @ target)
    np.testing.assert_allclose(coefficients, wanted[1:], rtol=1e-6, atol=1e-9)
    correlation = np.corrcoef(design @ wanted, target)[0, 1]
    assert share == pytest.approx(correlation**2, abs=1e-9)


@pytest.mark.parametrize("angles", [[0.1, 0.2, np.nan], [0.1] * 9, [0.0] * 9])
def test_nothing_to_explain(angles: list[float]) -> None:
    share, coefficients = explained_share(angles, np.arange(len(angles)))
    assert np.isnan(share)
    assert np.isnan(coefficients).all()
