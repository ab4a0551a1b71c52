import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dynoscope.optim import L1, ConvexFunction, Huber, Lp, Threshold, TopK

FUNCTIONS = [
    L1(),
    Lp(1),
    Lp(1.3),
    Lp(2),
    Lp(4.5),
    Threshold(0.0),
    Threshold(0.4),
    TopK(1),
    TopK(3),
    Huber(0.5),
]
EACH = pytest.mark.parametrize("k", FUNCTIONS, ids=repr)


def vector(seed: int, *shape: int) -> Tensor:
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (7,), generator=noise, dtype=torch.float64)


def literal(k: ConvexFunction, x: Tensor) -> float:
    """K as Table 2 writes it, in Python floats."""
    sizes = sorted((abs(value) for value in x.flatten().tolist()), reverse=True)
    match k:
        case L1():
            return math.fsum(sizes)
        case Lp(p):
            return float(math.fsum(size**p for size in sizes) ** (1 / p))
        case Threshold(e):
            return math.fsum(max(size - e, 0) for size in sizes)
        case TopK(count):
            return math.fsum(sizes[:count])
        case Huber(e):
            return math.fsum(
                size - e / 2 if size >= e else size**2 / (2 * e) for size in sizes
            )
    raise AssertionError(k)


@EACH
class TestFunction:
    def test_value_is_the_definition(self, k: ConvexFunction) -> None:
        for seed in range(5):
            x = vector(seed, 2, 4)
            assert k.value(x).item() == pytest.approx(literal(k, x), rel=1e-12)

    def test_gradient_is_the_slope_of_the_value(self, k: ConvexFunction) -> None:
        for seed in range(5):
            x, direction, h = vector(seed), vector(seed + 100), 1e-6
            slope = (literal(k, x + h * direction) - literal(k, x - h * direction)) / (
                2 * h
            )
            assert (k.grad(x) @ direction).item() == pytest.approx(slope, abs=1e-8)

    def test_gradient_is_autograd_of_the_value(self, k: ConvexFunction) -> None:
        x = vector(1).requires_grad_()
        (expected,) = torch.autograd.grad(k.value(x), x)
        torch.testing.assert_close(k.grad(x.detach()), expected)

    @settings(deadline=None, max_examples=30)
    @given(
        st.lists(
            st.one_of(st.just(0.0), st.just(0.5), st.floats(-1e3, 1e3)), min_size=3
        )
    )
    def test_fenchel_young_is_an_equality_at_the_gradient(
        self, k: ConvexFunction, values: list[float]
    ) -> None:
        x = torch.tensor(values, dtype=torch.float64)
        gradient = k.grad(x)
        product = (x * gradient).sum().item()
        both = (k.value(x) + k.conjugate(gradient)).item()
        # a sum of terms up to 1e3, in float64
        assert both == pytest.approx(product, rel=1e-9, abs=1e-9)

    @settings(deadline=None, max_examples=30)
    @given(st.integers(0, 10**6), st.floats(0.01, 10))
    def test_fenchel_young_is_an_inequality_elsewhere(
        self, k: ConvexFunction, seed: int, size: float
    ) -> None:
        x, y = vector(seed), vector(seed + 1)
        inside = y / k.gauge(y) * 0.999
        assert k.conjugate(inside).isfinite()
        assert k.value(x) + k.conjugate(inside) >= (x * inside).sum() - 1e-12
        assert k.conjugate(y / k.gauge(y) * 1.001).item() == math.inf
        assert k.gauge(size * y).item() == pytest.approx(size * k.gauge(y).item())

    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    )
    def test_finite_input_gives_a_finite_gradient(
        self, k: ConvexFunction, dtype: torch.dtype
    ) -> None:
        limits = torch.finfo(dtype)
        smallest = limits.smallest_normal
        rows = [0.0, smallest, -smallest], [limits.max, -limits.max, 1.0], [0.0] * 3
        for row in rows:
            x = torch.tensor([row], dtype=dtype)
            gradient = k.grad(x)
            assert gradient.dtype == dtype
            assert gradient.shape == x.shape
            assert gradient.isfinite().all()

    def test_zero_has_the_zero_gradient(self, k: ConvexFunction) -> None:
        assert torch.equal(k.grad(torch.zeros(4)), torch.zeros(4))

    def test_is_frozen_and_comparable(self, k: ConvexFunction) -> None:
        assert k == dataclasses.replace(k)  # type: ignore[type-var]
        assert "<=" in k.constraint


class TestBadInput:
    @pytest.mark.parametrize("p", [0.5, 0.0, -1.0, math.inf, math.nan])
    def test_p_makes_no_norm(self, p: float) -> None:
        with pytest.raises(ValueError, match=r"p must be finite and >= 1.*convex"):
            Lp(p)

    @pytest.mark.parametrize("e", [-0.1, math.inf, math.nan])
    def test_threshold_out_of_range(self, e: float) -> None:
        with pytest.raises(ValueError, match="e must be finite and >= 0"):
            Threshold(e)

    @pytest.mark.parametrize("e", [0.0, -0.1, math.inf, math.nan])
    def test_width_out_of_range(self, e: float) -> None:
        with pytest.raises(ValueError, match="e must be positive and finite"):
            Huber(e)

    @pytest.mark.parametrize("k", [0, -1, 1.5])
    def test_k_is_no_count(self, k: int) -> None:
        with pytest.raises(ValueError, match="k must be a whole number >= 1"):
            TopK(k)

    def test_k_exceeds_the_coordinates(self) -> None:
        with pytest.raises(ValueError, match="k = 5 exceeds the 4 coordinates"):
            TopK(5).grad(torch.ones(2, 2))
