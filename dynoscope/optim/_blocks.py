"""Norms and products of blocks: tensors, their rows, or many tensors as one.

Every function takes a list of tensors and gives back one entry a tensor, which
broadcasts to it: a number for a block of one or many tensors, a column for rows.
"""

import functools
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
    "norm_over",
    "normalize",
    "norms",
    "numels",
    "widened",
]

Per: TypeAlias = Literal["group", "row", "tensor"]
PER: tuple[Per, ...] = get_args(Per)

_LINE = 256  # squares at most, that float32 sums to its last digit
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
        return [norm_over(tensor, _row_dims(tensor), wide=wide) for tensor in tensors]
    if not tensors:
        return []
    if all(tensor.is_cpu for tensor in tensors):
        parts = [
            norm_over(tensor, tuple(range(tensor.ndim)), wide=wide).view(())
            for tensor in tensors
        ]
    else:
        dtype = _sum_dtype(tensors[0], wide=wide)
        parts = list(torch._foreach_norm(tuple(tensors), 2, dtype=dtype))
    return parts if per == "tensor" else joint(parts)


def norm_over(tensor: Tensor, dims: tuple[int, ...], *, wide: bool = True) -> Tensor:
    """2-norm over all dimensions, or all but the first, each kept with a length of 1.

    Args:
        tensor: of any shape.
        dims: the dimensions.
        wide: that of `norms`.
    """
    if _is_slow_to_widen(tensor):
        rows = tensor.reshape(1 if len(dims) == tensor.ndim else len(tensor), -1)
        sizes = _norms_by_lines(rows)
        least, most = sizes.aminmax()
        if not _SAFE < least.item() <= most.item() < math.inf:
            lost = ~((sizes > _SAFE) & sizes.isfinite())
            sizes[lost] = torch.linalg.vector_norm(
                rows[lost], dim=1, dtype=torch.float64
            )
        return sizes.view(-1, *[1] * (tensor.ndim - 1))
    norm: Tensor = torch.linalg.vector_norm(
        tensor, dim=dims, keepdim=True, dtype=_sum_dtype(tensor, wide=wide)
    )
    return norm


def _is_slow_to_widen(tensor: Tensor) -> bool:
    """Whether the copy in float64, that torch makes to sum in it, takes most time."""
    return (
        tensor.is_cpu
        and tensor.dtype == torch.float32
        and tensor.numel() >= _LARGE
        and not torch.compiler.is_compiling()  # that needs no copy, and cannot branch
    )


def _norms_by_lines(rows: Tensor) -> Tensor:
    """Norm of every row in float64, of norms of its parts in float32."""
    line = _line(rows.shape[1])
    rest = rows.shape[1] % line
    lines = rows[:, : rows.shape[1] - rest].unflatten(1, (-1, line))
    parts = torch.linalg.vector_norm(lines, dim=2)
    if rest:
        tail = torch.linalg.vector_norm(rows[:, -rest:], dim=1, keepdim=True)
        parts = torch.cat([parts, tail], dim=1)
    norms: Tensor = torch.linalg.vector_norm(parts, dim=1, dtype=torch.float64)
    return norms


@functools.cache
def _line(numel: int) -> int:
    """Length of the lines of a row: if possible one that leaves no rest."""
    lengths = range(_LINE, _LINE // 2, -1)
    return next((length for length in lengths if numel % length == 0), _LINE)


def joint(parts: Sequence[Tensor]) -> list[Tensor]:
    """Norm of all tensors as one, from the norm of each; one entry for each."""
    if not parts:
        return []
    home = parts[0].device
    whole = torch.linalg.vector_norm(torch.stack([part.to(home) for part in parts]))
    return [whole.to(part.device) for part in parts]


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
