"""Norms and products of blocks: tensors, their rows, or many tensors as one.

Every function takes a list of tensors and gives back one entry a tensor, which
broadcasts to it: a number for a block of one or many tensors, a column for rows.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

__all__ = [
    "PER",
    "Per",
    "dots",
    "inverse",
    "joint",
    "normalize",
    "norms",
    "numels",
    "widened",
]

Per: TypeAlias = Literal["group", "row", "tensor"]
PER: tuple[Per, ...] = get_args(Per)

_LINE = 256  # squares that float32 sums to its last digit
_LARGE = 2**16  # numbers whose copy in float64 leaves the cache
_SAFE = 1e-10  # of a larger norm no square that counts is too small for float32


def widened(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, those of 16 bits in float32, so that a factor keeps its digits."""
    return [
        tensor.float() if torch.finfo(tensor.dtype).bits < 32 else tensor
        for tensor in tensors
    ]


def norms(tensors: Sequence[Tensor], per: Per, *, wide: bool = True) -> list[Tensor]:
    """2-norm of every block, in the tensors' unit.

    The squares are summed in float64 (float32 on mps), where no float32 over- or
    underflows; or, where that is quicker, in the tensors' own dtype if not `wide`.
    """
    if per == "row":
        return [
            torch.linalg.vector_norm(
                tensor,
                dim=_row_dims(tensor),
                keepdim=True,
                dtype=_sum_dtype(tensor, wide=wide),
            )
            for tensor in tensors
        ]
    if not tensors:
        return []
    if all(tensor.is_cpu for tensor in tensors):
        parts = [_cpu_norm(tensor) for tensor in tensors]
    else:
        dtype = _sum_dtype(tensors[0], wide=wide)
        parts = list(torch._foreach_norm(tuple(tensors), 2, dtype=dtype))
    return parts if per == "tensor" else joint(parts)


def joint(parts: Sequence[Tensor]) -> list[Tensor]:
    """Norm of all tensors as one, from the norm of each; one entry for each."""
    if not parts:
        return []
    home = parts[0].device
    whole = torch.linalg.vector_norm(torch.stack([part.to(home) for part in parts]))
    return [whole.to(part.device) for part in parts]


def _cpu_norm(tensor: Tensor) -> Tensor:
    """Norm in float64.

    torch copies the tensor to float64 first, which takes most of the time if it is
    large. So float32 sums it there, in lines, if its squares permit.
    """
    numel = tensor.numel()
    if (
        numel >= _LARGE
        and tensor.dtype == torch.float32
        and not torch.compiler.is_compiling()  # which needs no copy, and cannot branch
    ):
        lines, rest = tensor.flatten().split([numel - numel % _LINE, numel % _LINE])
        parts = torch.linalg.vector_norm(lines.view(-1, _LINE), dim=1)
        parts = torch.cat([parts, torch.linalg.vector_norm(rest).view(1)])
        norm: Tensor = torch.linalg.vector_norm(parts, dtype=torch.float64)
        if _SAFE < norm.item() < math.inf:
            return norm
    exact: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return exact


def dots(left: Sequence[Tensor], right: Sequence[Tensor], per: Per) -> list[Tensor]:
    """Inner product of every block, in the dtype of the tensors."""
    pairs = zip(left, right, strict=True)
    if per == "row":
        return [(a * b).sum(_row_dims(a), keepdim=True) for a, b in pairs]
    parts = [torch.dot(a.reshape(-1), b.reshape(-1)) for a, b in pairs]
    if per == "tensor" or not parts:
        return parts
    whole = torch.stack([part.to(parts[0]) for part in parts]).sum()
    return [whole.to(part) for part in parts]


def numels(shapes: Iterable[torch.Size], per: Per) -> list[int]:
    """Number of elements of every block of tensors of these shapes."""
    if per == "row":
        return [math.prod(shape[1:] if len(shape) > 1 else shape) for shape in shapes]
    each = [shape.numel() for shape in shapes]
    return each if per == "tensor" else [sum(each)] * len(each)


def normalize(
    tensors: Sequence[Tensor], per: Per, *, least: float = 0.0, wide: bool = True
) -> None:
    """Scale every block, in place, to a root mean square of 1.

    A block becomes 0 if its root mean square is at most `least`, or too small for
    its inverse to be a number (1e-38 in float32). `wide` is that of `norms`.
    """
    sizes = norms(tensors, per, wide=wide)
    counts = numels((tensor.shape for tensor in tensors), per)
    for tensor, norm, numel in zip(tensors, sizes, counts, strict=True):
        tensor.mul_(inverse(norm / math.sqrt(max(numel, 1)), tensor, least=least))


def inverse(size: Tensor, like: Tensor, *, least: float = 0.0) -> Tensor:
    """1 / size in the dtype of `like`, 0 where the size is too small for it."""
    least = max(least, torch.finfo(like.dtype).tiny)
    size = torch.threshold(size, least, math.inf)  # whose inverse is 0
    return size.reciprocal().nan_to_num(0.0).to(like.dtype)


def _row_dims(tensor: Tensor) -> tuple[int, ...]:
    """All dimensions but the output's; a vector or a number is a single row."""
    return tuple(range(1 if tensor.ndim > 1 else 0, tensor.ndim))


def _sum_dtype(tensor: Tensor, *, wide: bool) -> torch.dtype | None:
    if wide and tensor.device.type != "mps":
        return torch.float64
    return None
