"""Every optimizer, and parameters of every awkward shape with gradients for them."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from dynoscope.optim import (
    L1,
    Huber,
    Lion,
    LionK,
    Lp,
    NormGD,
    OrtSepNorm,
    Rotational,
    SepNorm,
    Threshold,
    TopK,
)
from dynoscope.optim._turned_blocks import Per

SHAPES = [(7, 5), (3,), (), (2, 3, 1, 1), (0, 4), (5, 1)]


def rotational_lion(
    params: list[Parameter], *, center: bool = False, per: Per = "row", **hyper: Any
) -> Rotational:
    inner = Lion(params, **{"weight_decay": 0.1, **hyper})
    return Rotational(inner, center=center, per=per)


MAKERS: dict[str, Callable[..., Optimizer]] = {
    "Lion": Lion,
    "LionK-l1": functools.partial(LionK, k=L1()),
    "LionK-lp": functools.partial(LionK, k=Lp(1.5)),
    "LionK-lp-model": functools.partial(LionK, k=Lp(1.5), per="model"),
    "LionK-threshold": functools.partial(LionK, k=Threshold(0.1)),
    "LionK-topk-model": functools.partial(LionK, k=TopK(9), per="model"),
    "LionK-huber": functools.partial(LionK, k=Huber(0.5)),
    "NormGD": NormGD,
    "OrtSepNorm-group": functools.partial(OrtSepNorm, per="group"),
    "OrtSepNorm-row": functools.partial(OrtSepNorm, per="row"),
    "OrtSepNorm-tensor": OrtSepNorm,
    "Rotational": rotational_lion,
    "SepNorm-group": functools.partial(SepNorm, per="group"),
    "SepNorm-row": functools.partial(SepNorm, per="row"),
    "SepNorm-tensor": SepNorm,
}
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


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Gaussian numbers, the same for the same seed in every dtype."""
    noise = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=noise, dtype=torch.float64).to(dtype)
