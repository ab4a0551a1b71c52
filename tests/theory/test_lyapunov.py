"""The inequality along real steps, over random non-convex losses, for several K."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynoscope.optim import L1, ConvexFunction, Huber, LionK, Lp, Threshold, TopK
from dynoscope.theory import lyapunov

Array = NDArray[np.float64]
WEIGHTS = 6

# Each K with a subgradient of its conjugate inside the conjugate's domain.
FUNCTIONS: list[tuple[ConvexFunction, Callable[[Array], Array]]] = [
    (L1(), np.zeros_like),
    (Lp(1.5), np.zeros_like),
    (Lp(2.0), np.zeros_like),
    (Threshold(0.3), lambda y: 0.3 * np.sign(y)),
    (TopK(2), np.zeros_like),
    (Huber(0.4), lambda y: 0.4 * y),
]


class Waves:
    """A sum of cosines: f(w) = sum_i size_i cos(<wave_i, w> + phase_i)."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.size = random.normal(size=8)
        self.wave = random.normal(size=(8, WEIGHTS))
        self.phase = random.uniform(0, 2 * np.pi, 8)
        self.smoothness = float(np.abs(self.size) @ (self.wave**2).sum(axis=1))

    def value(self, w: Array) -> float:
        return float(self.size @ np.cos(self.wave @ w + self.phase))

    def grad(self, w: Array) -> Array:
        slope: Array = -(self.size * np.sin(self.wave @ w + self.phase)) @ self.wave
        return slope


def of(function: Callable[[torch.Tensor], torch.Tensor], x: Array) -> Any:
    return function(torch.from_numpy(x)).numpy()


def trace(
    k: ConvexFunction, seed: int, lr: float, decay: float, betas: tuple[float, float]
) -> tuple[Waves, list[tuple[Array, Array]]]:
    """Weights and momenta, of the paper's sign, along LionK's own explicit steps."""
    loss, random = Waves(seed), np.random.default_rng(seed + 1)
    start = random.uniform(-1, 1, WEIGHTS)
    inside = 0.9 * start / (of(k.gauge, start) * decay)
    param = torch.nn.Parameter(torch.from_numpy(inside))
    optimizer = LionK([param], lr, betas, decay, k=k)
    states = [(inside.copy(), np.zeros(WEIGHTS))]
    for _ in range(30):
        param.grad = torch.from_numpy(loss.grad(states[-1][0]))
        optimizer.step()
        momentum = -optimizer.state[param]["exp_avg"].numpy()
        states.append((param.detach().numpy().copy(), momentum.copy()))
    return loss, states


@pytest.mark.parametrize(("k", "conjugate_grad"), FUNCTIONS)
@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 2**20),
    st.floats(1e-4, 0.3),
    st.floats(0.05, 3),
    st.tuples(st.floats(0.05, 0.9), st.floats(0.05, 0.95)),
)
def test_it_falls_by_the_bound_at_least(
    k: ConvexFunction,
    conjugate_grad: Callable[[Array], Array],
    seed: int,
    lr: float,
    decay: float,
    shares: tuple[float, float],
) -> None:
    beta1 = shares[0]
    beta2 = beta1 + (1 - beta1) * shares[1]
    loss, states = trace(k, seed, lr, decay, (beta1, beta2))
    betas = np.array(beta1), np.array(beta2)
    eta = lyapunov.implicit_lr(np.array(lr), np.array(decay))
    setting = eta, np.array(decay), betas

    def height(w: Array, m: Array) -> float:
        found = lyapunov.value(
            np.asarray(loss.value(w)),
            of(k.penalty, decay * w),
            of(k.value, m),
            np.asarray(m @ w),
            *setting,
        )
        return float(found)

    for (w, m), (after, momentum) in pairwise(states):
        mixed = beta1 * m - (1 - beta1) * loss.grad(w)
        step, next_step = of(k.grad, mixed), of(k.grad, momentum)
        # the explicit step is the implicit one of another eta
        np.testing.assert_allclose(after, w + eta * (step - decay * after), atol=1e-12)
        first = lyapunov.weight_gap(
            step, decay * after, mixed, conjugate_grad(decay * after)
        )
        second = lyapunov.momentum_gap(step, next_step, mixed, momentum)
        scale = 1e-10 * max(1.0, abs(height(w, m)))
        assert first >= -scale
        assert second >= -scale
        bound = lyapunov.decrease_bound(
            first,
            second,
            ((step - decay * after) ** 2).sum(),
            np.asarray(loss.smoothness),
            *setting,
        )
        assert height(after, momentum) - height(w, m) <= bound + scale


def test_it_is_the_objective_at_a_stationary_point() -> None:
    """f' = -1 on a line: Lion ends at the wall, w = 1 / lambda, where H is F."""
    w, m, decay = np.array([2.0]), np.array([1.0]), np.array(0.5)
    betas = np.array(0.9), np.array(0.99)
    zero, eta = np.zeros(()), np.array(0.1)
    height = lyapunov.value(-w.sum(), zero, np.abs(m).sum(), m @ w, eta, decay, betas)
    assert height == pytest.approx(-2.0)
    step = np.sign(m)
    gap = lyapunov.weight_gap(step, decay * w, m, np.zeros(1))
    assert gap == 0
    assert lyapunov.momentum_gap(step, step, m, m) == 0
    moved = ((step - decay * w) ** 2).sum()
    bound = lyapunov.decrease_bound(gap, zero, moved, zero, eta, decay, betas)
    assert bound == 0
