import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from dynoscope.optim import (
    L1,
    ConvexFunction,
    Huber,
    Lion,
    LionK,
    Lp,
    NormGD,
    Threshold,
    TopK,
)

Array = NDArray[np.float64]
FUNCTIONS = [L1(), Lp(1.0), Lp(1.5), Lp(3), Threshold(0.3), TopK(4), Huber(0.7)]
EACH = pytest.mark.parametrize("k", FUNCTIONS, ids=repr)
PATHS = pytest.mark.parametrize("foreach", [None, True, False])


def literal_grad(k: ConvexFunction, x: Array) -> Array:
    """The gradient of K as Table 2 writes it, with its mends."""
    size: Array = np.abs(x)
    sign: Array = np.sign(x)
    match k:
        case L1():
            return sign
        case Lp(p):
            norm = (size**p).sum() ** (1 / p)
            share = size / norm if size.any() else size
            return np.asarray(sign * share ** (p - 1))
        case Threshold(e):
            return sign * (size > e)
        case TopK(count):
            return np.asarray(sign * (size >= np.sort(size, axis=None)[-count]))
        case Huber(e):
            return np.asarray(np.clip(x, -e, e) / e)
    raise AssertionError(k)


class Halved:
    """A K of one's own: ||x||^2 / 4, Lion-K's way to momentum SGD."""

    def grad(self, x: Tensor) -> Tensor:
        return x / 2


class TestRecursion:
    @EACH
    @settings(deadline=None, max_examples=15)
    @given(
        st.lists(st.integers(2, 4), min_size=2, max_size=4),
        st.floats(1e-6, 1),
        st.floats(0, 0.9),
        st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
    )
    def test_float64_transcription(
        self,
        k: ConvexFunction,
        shape: list[int],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        switches: tuple[bool, bool, bool],
    ) -> None:
        maximize, foreach, whole = switches
        noise = np.random.default_rng(0)
        weight, momentum = noise.standard_normal((2, *shape)), np.zeros((2, *shape))
        params = [Parameter(torch.tensor(part)) for part in weight]
        optimizer = LionK(
            params,
            lr,
            betas,
            weight_decay,
            k=k,
            per="model" if whole else "tensor",
            maximize=maximize,
            foreach=foreach,
        )
        beta1, beta2 = betas
        for step in range(50):
            grad = noise.standard_normal((2, *shape)) * (step > 0)
            for param, part in zip(params, grad, strict=True):
                param.grad = torch.tensor(part)
            optimizer.step()
            grad = -grad if maximize else grad
            mixed = beta1 * momentum + (1 - beta1) * grad
            parts = [mixed] if whole else list(mixed)
            direction = np.stack([literal_grad(k, part) for part in parts])
            direction = direction.reshape(weight.shape)
            weight = weight - lr * (direction + weight_decay * weight)
            momentum = beta2 * momentum + (1 - beta2) * grad
        for param, part in zip(params, weight, strict=True):
            np.testing.assert_allclose(param.detach(), part, rtol=1e-6, atol=1e-9)

    @PATHS
    @pytest.mark.parametrize("per", ["tensor", "model"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_l1_is_lion_bit_for_bit(
        self, foreach: bool | None, per: str, dtype: torch.dtype
    ) -> None:
        noise = torch.Generator().manual_seed(0)
        shapes = [(7, 5), (3,), (), (0, 4)]
        params = [
            Parameter(torch.randn(shape, generator=noise).to(dtype)) for shape in shapes
        ]
        others = copy.deepcopy(params)
        ours = LionK(params, 3e-3, weight_decay=0.3, k=L1(), per=per, foreach=foreach)  # type: ignore[arg-type]
        lion = Lion(others, 3e-3, weight_decay=0.3, foreach=foreach)
        for _ in range(50):
            for param, other in zip(params, others, strict=True):
                grad = torch.randn(param.shape, generator=noise).to(dtype)
                param.grad, other.grad = grad, grad.clone()
            ours.step()
            lion.step()
        for param, other in zip(params, others, strict=True):
            assert torch.equal(param, other)
            assert torch.equal(
                ours.state[param]["exp_avg"], lion.state[other]["exp_avg"]
            )

    def test_l2_of_the_model_is_normgd(self) -> None:
        params = [Parameter(torch.ones(2, 3)), Parameter(torch.ones(4))]
        others = copy.deepcopy(params)
        ours = LionK(params, 0.1, weight_decay=0.1, k=Lp(2), per="model")
        normgd = NormGD(others, 0.1, weight_decay=0.1)
        for seed in range(10):
            torch.manual_seed(seed)
            for param, other in zip(params, others, strict=True):
                param.grad = other.grad = torch.randn_like(param)
            ours.step()
            normgd.step()
        for param, other in zip(params, others, strict=True):
            torch.testing.assert_close(param, other)

    def test_a_k_of_ones_own(self) -> None:
        param = Parameter(torch.zeros(2))
        param.grad = torch.tensor([1.0, -4.0])
        LionK([param], 0.1, (0.0, 0.0), k=Halved()).step()
        torch.testing.assert_close(param.detach(), torch.tensor([-0.05, 0.2]))


class TestConstraint:
    @EACH
    @pytest.mark.parametrize("start", [0.1, 5.0])
    def test_distance_to_it_shrinks_as_predicted_and_it_holds_in_the_limit(
        self, k: ConvexFunction, start: float
    ) -> None:
        # a loss that pulls far out for ever: only K and the decay hold it
        noise = torch.Generator().manual_seed(0)
        pull = torch.randn(12, generator=noise, dtype=torch.float64)
        param = Parameter(start * torch.randn(12, generator=noise).double())
        lr, weight_decay = 0.01, 2.0
        optimizer = LionK([param], lr, weight_decay=weight_decay, k=k)

        def gauge() -> float:
            return k.gauge(weight_decay * param.detach()).item()

        first, shrink = gauge() - 1, 1 - lr * weight_decay
        for step in range(1, 1501):
            param.grad = pull * (1 + 0.5 * torch.randn(12, generator=noise))
            optimizer.step()
            assert gauge() - 1 <= max(shrink**step * first, 0) + 1e-12
        assert gauge() <= 1 + 1e-9

    @pytest.mark.parametrize(
        ("k", "solution"),
        [
            (L1(), [0.5, -0.5, 0.25]),
            (Lp(2), [0.5 * 3 / 5.0062, -0.5 * 4 / 5.0062, 0.5 * 0.25 / 5.0062]),
            # argmin of (w - c)^2 / 2 + e |w|
            (Threshold(0.1), [0.5, -0.5, 0.15]),
            # argmin of (w - c)^2 / 2 + e * weight_decay * w^2 / 2
            (Huber(0.25), [0.5, -0.5, 0.25 / 1.5]),
            # projection on |w_1| + |w_2| + |w_3| <= .5
            (TopK(1), [0.0, -0.5, 0.0]),
        ],
        ids=repr,
    )
    def test_limit_solves_the_constrained_problem(
        self, k: ConvexFunction, solution: list[float]
    ) -> None:
        target = torch.tensor([3.0, -4.0, 0.25], dtype=torch.float64)
        param = Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = LionK([param], 2e-3, weight_decay=2.0, k=k)
        for _ in range(4000):
            param.grad = param.detach() - target
            optimizer.step()
        # a few steps of 2e-3: a discontinuous gradient oscillates by that
        np.testing.assert_allclose(param.detach(), solution, atol=0.02)


def test_copies_keep_k() -> None:
    optimizer = LionK([Parameter(torch.ones(4))], k=TopK(2), per="model")
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert (other.k, other.per) == (TopK(2), "model")


class TestBadInput:
    def test_k_without_a_gradient(self) -> None:
        with pytest.raises(ValueError, match=r"k has no method grad\(x\).*L1\(\)"):
            LionK([Parameter(torch.ones(2))], k=math.sin)  # type: ignore[arg-type]

    def test_unknown_scope(self) -> None:
        with pytest.raises(ValueError, match=r"per must be one of.*'model'"):
            LionK([Parameter(torch.ones(2))], k=L1(), per="row")  # type: ignore[arg-type]

    def test_gradient_of_another_shape(self) -> None:
        class Summed:
            def grad(self, x: Tensor) -> Tensor:
                return x.sum()

        param = Parameter(torch.ones(2))
        param.grad = torch.ones(2)
        with pytest.raises(ValueError, match=r"shape \(\).*shape \(2,\)"):
            LionK([param], k=Summed()).step()

    def test_more_than_a_tensor_has(self) -> None:
        params = [Parameter(torch.ones(3)), Parameter(torch.ones(2))]
        with pytest.raises(ValueError, match=r"k = 3 exceeds the 2.*per=\"model\""):
            LionK(params, k=TopK(3))
        optimizer = LionK(params[:1], k=TopK(3))
        with pytest.raises(ValueError, match="k = 3 exceeds the 2"):
            optimizer.add_param_group({"params": params[1:]})
        assert len(optimizer.param_groups) == 1

    def test_more_than_the_model_has(self) -> None:
        params = [Parameter(torch.ones(3)), Parameter(torch.ones(2))]
        LionK(params, k=TopK(5), per="model")
        with pytest.raises(ValueError, match="k = 6 exceeds the 5"):
            LionK(params, k=TopK(6), per="model")
