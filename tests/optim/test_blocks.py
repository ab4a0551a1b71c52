import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.optim import _blocks
from dynoscope.optim._blocks import Per

SIZES = [0.0, 1e-45, 1e-30, 1e-22, 1e-11, 1e-9, 1.0, 1e16, 1e38]
SHAPES = [
    *[(), (0,), (0, 4), (3, 0), (1000,), (2**16 - 1,), (2**16,), (300_007,)],
    *[(70, 1000), (300, 384), (4, 66_000), (1000, 7, 11), (2000, 35)],
]


@pytest.mark.parametrize("per", ["row", "tensor"])
@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from(SHAPES),
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_norm_of_any_size_and_range(
    per: Per, shape: tuple[int, ...], sizes: list[float], seed: int
) -> None:
    noise = np.random.default_rng(seed)
    # numbers of sizes far apart, mixed; or rows of them
    scale = noise.choice(sizes, shape if seed % 2 else shape[:1])
    values = np.asarray((noise.uniform(-1, 1, shape).T * scale.T).T, np.float32)
    (norm,) = _blocks.norms([torch.from_numpy(values)], per)
    squares = values.astype(np.float64) ** 2
    rows = tuple(range(1, len(shape))) or None
    expected = (
        np.sqrt(squares.sum(rows, keepdims=True))
        if per == "row"
        else np.sqrt(squares.sum())
    )
    np.testing.assert_allclose(norm, np.asarray(expected), rtol=2e-7, strict=True)


@pytest.mark.parametrize("size", [1e-19, 3e-23, 1e-30])
def test_squares_beyond_the_range_of_float32(size: float) -> None:
    # the square of 3e-23 is 9e-46, but 1.4e-45 in float32
    for its_size in (size, 1 / size):
        tensor = torch.ones(65, 1024)
        tensor[3] = its_size
        (rows,) = _blocks.norms([tensor], "row")
        np.testing.assert_allclose(rows[2:5, 0], [32, 32 * its_size, 32], rtol=1e-6)
        (whole,) = _blocks.norms([torch.full_like(tensor, its_size)], "tensor")
        np.testing.assert_allclose(whole, 32 * 65**0.5 * its_size, rtol=1e-6)


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_norm_of_a_strided_tensor(memory: torch.memory_format) -> None:
    noise = torch.Generator().manual_seed(0)
    tensor = torch.randn(64, 128, 5, 5, generator=noise).to(memory_format=memory)
    for view in (tensor, tensor[:, ::2], tensor.transpose(0, 1)):
        (norm,) = _blocks.norms([view], "tensor")
        expected = math.sqrt(math.fsum(x * x for x in view.flatten().tolist()))
        assert norm.item() == pytest.approx(expected, rel=2e-7, abs=0)


def test_long_sums_do_not_drift() -> None:
    # one float32 sum of as many squares is 2e-4 off
    (norm,) = _blocks.norms([torch.full((10_000_000,), 0.1)], "tensor", wide=False)
    expected = float(np.float32(0.1)) * math.sqrt(10_000_000)
    assert norm.item() == pytest.approx(expected, rel=2e-7, abs=0)


@pytest.mark.parametrize(
    ("size_dtype", "dtype"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_inverse_of_any_size(size_dtype: torch.dtype, dtype: torch.dtype) -> None:
    sizes = [0.0, 1e-300, 1e-45, 1e-30, 0.25, 0.5, 4.0, 1e30, math.inf, math.nan]
    like, least = torch.zeros((), dtype=dtype), 0.25
    for size in torch.tensor(sizes, dtype=size_dtype):
        for bound in (0.0, least):
            floor = max(bound, torch.finfo(dtype).tiny)
            expected = 1 / size.item() if size.item() > floor else 0.0
            inverse = _blocks.inverse(size, like, least=bound)
            assert inverse.dtype == dtype
            assert inverse.item() == pytest.approx(expected, rel=1e-6, abs=0)
