"""Parameters of every awkward shape, and gradients for them."""

import pytest
import torch
from torch.nn import Parameter

SHAPES = [(7, 5), (3,), (), (2, 3, 1, 1), (0, 4), (5, 1)]
PATHS = pytest.mark.parametrize("foreach", [None, True, False])


def parameters(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Parameter]:
    noise = torch.Generator().manual_seed(seed)
    return [
        Parameter(torch.randn(shape, generator=noise).to(dtype)) for shape in SHAPES
    ]


def draw_gradients(params: list[Parameter], seed: int) -> None:
    noise = torch.Generator().manual_seed(seed)
    for param in params:
        grad = torch.randn(param.shape, generator=noise)
        # some coordinates get no gradient, as in a dead unit
        param.grad = (grad * (grad.abs() > 0.3)).to(param.dtype)
