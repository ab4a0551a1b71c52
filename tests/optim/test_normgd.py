import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Parameter

from dynoscope.optim import NormGD
from tests.systems import RandomWalk

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4)


@settings(deadline=None, max_examples=25)
@given(
    SHAPES,
    st.floats(1e-6, 1),
    st.floats(0, 0.9),
    st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    st.booleans(),
    st.booleans(),
)
def test_float64_transcription(
    shapes: list[list[int]],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    maximize: bool,
    foreach: bool,
) -> None:
    noise = np.random.default_rng(0)
    weights = [np.asarray(noise.standard_normal(shape)) for shape in shapes]
    momenta = [np.zeros(shape) for shape in shapes]
    params = [Parameter(torch.tensor(weight)) for weight in weights]
    # a group each: the norm is that of the whole model all the same
    groups = [{"params": [param]} for param in params]
    optimizer = NormGD(
        groups, lr, betas, weight_decay, maximize=maximize, foreach=foreach
    )
    beta1, beta2 = betas
    for step in range(50):
        # nothing to normalize at first
        grads = [np.asarray(noise.standard_normal(s) * (step > 0)) for s in shapes]
        for param, grad in zip(params, grads, strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
        grads = [-grad if maximize else grad for grad in grads]
        mixed = [
            beta1 * momentum + (1 - beta1) * grad
            for momentum, grad in zip(momenta, grads, strict=True)
        ]
        norm = np.sqrt(sum((n * n).sum() for n in mixed)) or 1.0
        weights = [
            (1 - lr * weight_decay) * weight - lr * n / norm
            for weight, n in zip(weights, mixed, strict=True)
        ]
        momenta = [
            beta2 * momentum + (1 - beta2) * grad
            for momentum, grad in zip(momenta, grads, strict=True)
        ]
    for param, weight in zip(params, weights, strict=True):
        np.testing.assert_allclose(param.detach(), weight, rtol=1e-6, atol=1e-12)


def test_the_whole_model_moves_by_lr() -> None:
    params = [Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), ())]
    for param in params:
        param.grad = torch.full_like(param, 1e-25)
    NormGD(params, lr=0.5).step()
    moved = torch.cat([param.detach().reshape(-1) for param in params])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-6)


def test_random_walk_reaches_the_predicted_norm() -> None:
    lr, weight_decay = 1e-2, 0.5
    predicted = lr / np.sqrt(1 - (1 - lr * weight_decay) ** 2)
    system = RandomWalk()
    system.rescale(np.full(64, predicted / 8))
    walk = system.run(
        lambda params: NormGD(params, lr, (0.0, 0.0), weight_decay), 1500
    ).settled()
    whole = np.sqrt((walk.weight_norm**2).sum(axis=1))
    np.testing.assert_allclose(whole.mean() / predicted, 1, atol=1e-3)
