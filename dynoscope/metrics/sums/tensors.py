"""Sums over runs of elements, and tensors laid out for them."""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from torch import Tensor

from dynoscope.measurement import BOX_TOLERANCE, UNIT_SUMS, Sum
from dynoscope.sharding import local

__all__ = [
    "SecondMoment",
    "SecondMoments",
    "Tensors",
    "count_far",
    "count_nonfinite",
    "flat",
    "is_dense",
    "kinds_of",
    "real",
    "sum_units",
    "unit_rows",
]

Tensors: TypeAlias = Sequence[Tensor | None]
"""Tensors in the order of some layers; None where a layer has none."""


class SecondMoment(NamedTuple):
    """A parameter's second moment as Adam divides by it: sqrt(v) / correction + eps.

    Attributes:
        v: running mean of the squared gradient, after the step.
        correction: root of its bias correction, sqrt(1 - beta2**t); a tensor of one
            element where the optimizer counts its steps on an accelerator.
        eps: what is added to the root.
    """

    v: Tensor
    correction: float | Tensor
    eps: float


SecondMoments: TypeAlias = Sequence[SecondMoment | None]
"""Second moments in the order of some layers; None where a layer has none."""

LONG: Final = 1 << 14
"""Above this length a norm, taken in one pass, would lose float32 accuracy."""


_KIND: Final[Sequence[Callable[[Any], Any]]] = (
    *map(operator.attrgetter, ("dtype", "device")),
    Tensor.stride,
)


def kinds_of(tensors: Sequence[Tensor]) -> list[Any]:
    """How their data lie: of tensors with equal ones, one is read as the other.

    It is asked at every measured step: a loop in C for each property, and few objects.
    """
    return [*itertools.chain.from_iterable([map(of, tensors) for of in _KIND])]


def unit_rows(sums: Tensor) -> Tensor:
    """UNIT_SUMS where a unit is a whole column of the sums; they are adjacent."""
    return sums[UNIT_SUMS[0] : UNIT_SUMS[-1] + 1]


def sum_units(
    old: Tensor, update: Tensor, product: Tensor, length: int, out: Tensor
) -> None:
    """Take UNIT_SUMS over each run of `length` elements."""
    old, update, product = (x.view(-1, length) for x in (old, update, product))
    weight_sq, weight_update, turn_sq = out
    _sum_squares(old, product, weight_sq)
    torch.sum(torch.mul(old, update, out=product), 1, out=weight_update)
    # A zero weight has slope 0 / tiny: all of its update is turn.
    tiny = torch.finfo(old.dtype).tiny
    slope = (weight_update / weight_sq.clamp(min=tiny)).unsqueeze(1)
    turn = torch.addcmul(update, old, slope, value=-1, out=product)
    _sum_squares(turn, turn, turn_sq)


def _sum_squares(x: Tensor, product: Tensor, out: Tensor) -> None:
    if x.shape[1] <= LONG:
        torch.linalg.vector_norm(x, dim=1, out=out)
        out.square_()
    else:
        torch.sum(torch.mul(x, x, out=product), 1, out=out)


def count_far(
    magnitude: Tensor,
    limit: float | Tensor,
    product: Tensor,
    sums: Sequence[Tensor] | Tensor,
) -> None:
    """Take OUTSIDE and AT_EDGE along the last axis; WEIGHT_MAX is there already."""
    edge = (1 - BOX_TOLERANCE) * limit
    largest = sums[Sum.WEIGHT_MAX]
    # Where looking at a number is free, do not count what is not there.
    if largest.device.type == "cpu" and _all_below(largest, edge):
        return
    torch.sum(torch.ge(magnitude, edge, out=product), -1, out=sums[Sum.AT_EDGE])
    torch.sum(torch.gt(magnitude, limit, out=product), -1, out=sums[Sum.OUTSIDE])


def _all_below(largest: Tensor, edge: float | Tensor) -> bool:
    if isinstance(edge, Tensor):
        return bool((largest < edge.squeeze(1)).all())
    return float(largest) < edge


def real(x: Tensor) -> Tensor:
    """A complex tensor's real and imaginary parts in a last dimension; else itself."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def flat(x: Tensor, like: Tensor) -> Tensor:
    """`x` in 1-d, a view where it can be, its output rows one after the other.

    Of a DTensor it is the local shard.

    Elements of all tensors of a layer must meet in the same order: the memory
    order of the parameter `like` where it is dense, else index order.
    """
    x, like = real(local(x)), real(local(like))
    if x.is_contiguous() and like.is_contiguous():
        return x.view(-1)
    if not _is_channels_last(like):
        return x.reshape(-1)
    if x.stride() != like.stride():
        x = torch.empty_like(like, dtype=x.dtype).copy_(x)
    return x.as_strided((x.numel(),), (1,))


def is_dense(x: Tensor) -> bool:
    """Whether memory holds the elements without gaps, output rows one after another."""
    return x.is_contiguous() or _is_channels_last(x)


def _is_channels_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()])


@torch.no_grad()
def count_nonfinite(
    parameters: Tensors, grads: Tensors, momenta: Tensors, sums: Tensor
) -> None:
    """Take NONFINITE, of each layer's three tensors together."""
    for k, tensors in enumerate(zip(parameters, grads, momenta, strict=True)):
        shards = [local(x) for x in tensors if x is not None]
        counts = [x.isfinite().logical_not_().sum() for x in shards]
        sums[Sum.NONFINITE, k] = torch.stack(counts).sum()
