import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.optim import _blocks

SIZES = [0.0, 1e-45, 1e-30, 1e-22, 1e-11, 1e-9, 1.0, 1e16, 1e38]


@pytest.mark.parametrize("wide", [True, False])
@settings(deadline=None, max_examples=60)
@given(
    numel=st.sampled_from([0, 1, 1000, 2**16 - 1, 2**16, 2**16 + 1, 300_000]),
    sizes=st.lists(st.sampled_from(SIZES), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_norm_of_any_size_and_range(
    wide: bool, numel: int, sizes: list[float], seed: int
) -> None:
    noise = np.random.default_rng(seed)
    # numbers of sizes far apart, mixed
    scale = noise.permutation(np.resize(np.array(sizes), numel))
    values = (noise.uniform(-1, 1, numel) * scale).astype(np.float32)
    (norm,) = _blocks.norms([torch.from_numpy(values)], "tensor", wide=wide)
    expected = math.sqrt(math.fsum(values.astype(np.float64) ** 2))
    assert norm.item() == pytest.approx(expected, rel=2e-7, abs=0)


@pytest.mark.parametrize("size", [1e-30, 3e-23, 1e-19, 1e19, 1e30])
def test_squares_beyond_the_range_of_float32(size: float) -> None:
    # the square of 3e-23 is 9e-46, but 1.4e-45 in float32
    tensor = torch.full((65, 1024), size)
    tensor[3] /= 100
    (norm,) = _blocks.norms([tensor], "tensor")
    assert norm.item() == pytest.approx(size * 32 * math.sqrt(64.0001), rel=1e-6, abs=0)


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
