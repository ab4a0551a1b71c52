import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import Parameter

from dynoscope.optim import OrtSepNorm, SepNorm
from dynoscope.optim._blocks import PER, Per
from dynoscope.theory import autocorrelation
from tests.systems import RandomWalk

Array = NDArray[np.float64]
CLASSES: list[Callable[..., SepNorm | OrtSepNorm]] = [SepNorm, OrtSepNorm]


def blocks(shapes: Sequence[Sequence[int]], per: Per) -> list[NDArray[np.int_]]:
    """Indices of every block into all weights laid end to end."""
    cut = np.cumsum([int(np.prod(shape)) for shape in shapes])
    tensors = np.split(np.arange(cut[-1]), cut[:-1])
    if per == "group":
        return [np.arange(cut[-1])]
    if per == "tensor":
        return tensors
    rows = []
    for indices, shape in zip(tensors, shapes, strict=True):
        rows += list(indices.reshape(shape)) if len(shape) > 1 else [indices]
    return [row.reshape(-1) for row in rows]


def update(weight: Array, mixed: Array, *, orthogonal: bool) -> Array:
    """Definitions A.3 and A.4 on one block."""
    if not mixed.any():
        return mixed
    if orthogonal and weight.any() and weight.size > 1:
        size, weight_size = np.linalg.norm(mixed), np.linalg.norm(weight)
        cos = weight @ mixed / (weight_size * size)
        mixed = mixed - cos * size / weight_size * weight
    return np.asarray(np.sqrt(mixed.size) * mixed / np.linalg.norm(mixed))


@pytest.mark.parametrize("make", CLASSES)
@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4),
    st.sampled_from(PER),
    st.floats(1e-6, 1),
    st.floats(1e-3, 0.9),
    st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    st.tuples(st.booleans(), st.booleans()),
)
def test_float64_transcription(
    make: Callable[..., SepNorm | OrtSepNorm],
    shapes: list[list[int]],
    per: Per,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    switches: tuple[bool, bool],
) -> None:
    maximize, foreach = switches
    noise = np.random.default_rng(0)
    sizes = [int(np.prod(shape)) for shape in shapes]
    weight, momentum = noise.standard_normal(sum(sizes)), np.zeros(sum(sizes))
    params = [
        Parameter(torch.tensor(part).reshape(shape))
        for part, shape in zip(
            np.split(weight, np.cumsum(sizes)[:-1]), shapes, strict=True
        )
    ]
    optimizer = make(
        params, lr, betas, weight_decay, per=per, maximize=maximize, foreach=foreach
    )
    (beta1, beta2), cut = betas, blocks(shapes, per)
    for step in range(50):
        # nothing to normalize at first
        grad = noise.standard_normal(sum(sizes)) * (step > 0)
        for param, part in zip(params, torch.tensor(grad).split(sizes), strict=True):
            param.grad = part.reshape(param.shape)
        optimizer.step()
        uphill = -grad if maximize else grad
        mixed = beta1 * momentum + (1 - beta1) * uphill
        direction = np.zeros_like(weight)
        for block in cut:
            direction[block] = update(
                weight[block], mixed[block], orthogonal=make is OrtSepNorm
            )
        weight = (1 - lr * weight_decay) * weight - lr * direction
        momentum = beta2 * momentum + (1 - beta2) * uphill
    ours = torch.cat([param.detach().reshape(-1) for param in params]).numpy()
    np.testing.assert_allclose(ours, weight, rtol=1e-6, atol=1e-9)


class TestRandomWalk:
    """Rows settle at lr sqrt(C S / (1 - q^2)), S = 1 without alike steps."""

    LR, WEIGHT_DECAY = 1e-3, 5.0

    def ratio(
        self,
        make: Callable[..., SepNorm | OrtSepNorm],
        betas: tuple[float, float],
        autocorrelation_sum: float = 1.0,
        steps: int = 1500,
    ) -> float:
        q = 1 - self.LR * self.WEIGHT_DECAY
        system = RandomWalk()
        predicted = self.LR * np.sqrt(system.numel * autocorrelation_sum / (1 - q * q))
        system.rescale(np.full(64, predicted))
        walk = system.run(
            lambda params: make(params, self.LR, betas, self.WEIGHT_DECAY, per="row"),
            steps,
        )
        return float(walk.settled().weight_norm.mean() / predicted)

    @pytest.mark.parametrize("make", CLASSES)
    def test_without_momentum(self, make: Callable[..., SepNorm | OrtSepNorm]) -> None:
        assert self.ratio(make, (0.0, 0.0)) == pytest.approx(1, abs=1e-3)

    def test_orthogonal_with_momentum(self) -> None:
        assert self.ratio(OrtSepNorm, (0.9, 0.99)) == pytest.approx(1, abs=1e-3)

    def test_with_momentum(self) -> None:
        q = np.array(1 - self.LR * self.WEIGHT_DECAY)
        alike = autocorrelation.interpolated_sum(np.array(0.9), np.array(0.99), q)
        ratio = self.ratio(SepNorm, (0.9, 0.99), float(alike), steps=3000)
        assert ratio == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("per", PER)
def test_every_block_of_orthogonal_settles_whatever_its_gradient(per: Per) -> None:
    # no normalization anywhere: a gradient with a part along the weight
    noise = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(6, 5, generator=noise)) for _ in range(2)]
    lr, weight_decay = 1e-2, 2.0
    optimizer = OrtSepNorm(params, lr, weight_decay=weight_decay, per=per)
    for _ in range(500):
        for param in params:
            param.grad = param.detach() + torch.randn(6, 5, generator=noise)
        optimizer.step()
    weights = torch.cat([param.detach().reshape(-1) for param in params]).double()
    for block in blocks([(6, 5), (6, 5)], per):
        predicted = lr * np.sqrt(len(block) / (1 - (1 - lr * weight_decay) ** 2))
        assert weights[block].norm().item() == pytest.approx(predicted, rel=1e-3)


def test_an_update_along_the_weight_is_none() -> None:
    start = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    for per in PER:
        param = Parameter(start.clone())
        param.grad = 3 * start
        OrtSepNorm([param], lr=0.1, weight_decay=0.5, per=per).step()
        torch.testing.assert_close(param.detach(), 0.95 * start)


def test_groups_choose_their_own_blocks() -> None:
    params = [Parameter(torch.zeros(2, 2)) for _ in range(4)]
    for param in params:
        param.grad = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    groups: list[dict[str, Any]] = [
        {"params": params[:1], "per": "row"},
        {"params": params[1:2]},
        {"params": params[2:], "per": "group"},
    ]
    assert params[3].grad is not None
    params[3].grad.zero_()
    SepNorm(groups, lr=5.0, weight_decay=0.0).step()
    for param, count in zip(params, (2, 4, 8), strict=False):
        expected = -torch.tensor([[3.0, 4.0], [0.0, 0.0]]) * count**0.5
        torch.testing.assert_close(param.detach(), expected)
    assert torch.equal(params[3], torch.zeros(2, 2))


def test_unknown_blocks() -> None:
    param = Parameter(torch.zeros(2))
    for make in CLASSES:
        with pytest.raises(ValueError, match=r"per must be one of.*got 'layer'"):
            make([param], per="layer")


class TestWithoutWeightDecay:
    def test_orthogonal_warns(self) -> None:
        param = Parameter(torch.ones(2))
        with pytest.warns(UserWarning, match=r"grows for ever; set weight_decay > 0"):
            OrtSepNorm([param], weight_decay=0.0)

    def test_a_default_that_no_group_uses_does_not_warn(self) -> None:
        group = {"params": [Parameter(torch.ones(2))], "weight_decay": 0.1}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            OrtSepNorm([group], weight_decay=0.0)
            SepNorm([Parameter(torch.ones(2))], weight_decay=0.0)
