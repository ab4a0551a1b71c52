"""Turning blocks of weights: rows or whole tensors, their norm kept.

What is known of a block is a column, which broadcasts to the tensor: one entry a
row, or a single one; in float64 where the device has it.
"""

import math
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from dynoscope.optim import _blocks

__all__ = [
    "PER",
    "STATE",
    "Per",
    "Turn",
    "Turning",
    "can_center",
    "can_turn",
    "center_",
    "check_options",
    "factor_column",
]

Per: TypeAlias = Literal["row", "tensor"]
PER: Final[tuple[Per, ...]] = ("row", "tensor")

STATE: Final = ("rotation_norm", "rotation_mean_square", "rotation_mass")
"""What is kept of a parameter: n, the running mean of ||D||^2, and its weights' sum.

The mean starts at 0; divided by the sum of its weights, 1 - beta^t, it is unbiased.
"""


class Turn(NamedTuple):
    """How the blocks of one parameter turn in a step.

    Attributes:
        per: what a block is.
        center: whether every block's mean is taken out of its update.
        beta: weight of the past in the mean square of updates.
        angle: eta_r in radians; a number, or a column.
        lr: learning rate that the update contains.
        keep: 1 - lr * weight_decay, for blocks that have no direction.
        from_zero: whether the update was taken with weights of 0.
    """

    per: Per
    center: bool
    beta: float
    angle: float | Tensor
    lr: float
    keep: float
    from_zero: bool


class Turning:
    """The turn of one parameter, in two halves with sums to take before each.

    Args:
        param: holds the inner optimizer's update, without decay; and the result.
        before: the weight before the step; of the same shape and dtype.
        turn: how to turn.
        state: the parameter's state; gains `STATE`.
    """

    def __init__(
        self, param: Tensor, before: Tensor, turn: Turn, state: dict[str, Any]
    ) -> None:
        self._param, self._turn, self._state = _real(param), turn, state
        # 16 bits are turned in 32, so that a factor keeps its digits
        self._before, self._update = _blocks.widened([_real(before), self._param])
        self._dims = _dims(param, turn.per)

    def first_sums(self) -> Tensor:
        """Sums of w^2, D w, D and w over every block, stacked; they add up."""
        size = self._norm(self._before)
        sums = [size.square(), self._sum(self._update * self._before).to(size)]
        if self._turn.center:
            sums += [self._sum(each).to(size) for each in (self._update, self._before)]
        return torch.stack(sums)

    def straighten(self, sums: Tensor) -> None:
        """Take the mean and the part along the weight out of the update."""
        squares, along, *totals = sums
        self._size = squares.sqrt()
        if STATE[0] not in self._state:
            zeros = torch.zeros_like(self._size)
            fresh = (self._size.clone(), zeros, zeros.new_zeros(()))
            self._state.update(zip(STATE, fresh, strict=True))
        self._free = self._state["rotation_norm"] == 0
        removed_sq = torch.zeros_like(squares)
        if totals:
            mean = (totals[0] / self._numel()).masked_fill(self._free, 0.0)
            removed_sq = mean.square() * self._numel()
            along = along - mean * totals[1]
            self._update.sub_(mean.to(self._update.dtype))
        shrink = _blocks.inverse(self._size, self._size)
        share = (along * shrink * shrink).masked_fill(self._free, 0.0)
        self._update.addcmul_(self._before, share.to(self._update.dtype), value=-1)
        removed_sq = removed_sq + along.square() * shrink.square()
        self._noise_sq = removed_sq * (16 * torch.finfo(self._update.dtype).eps) ** 2

    def second_sums(self) -> Tensor:
        """Sum of D^2 over every block; they add up."""
        return self._norm(self._update).square().unsqueeze(0)

    def rotate(self, sums: Tensor) -> None:
        """Turn, and write the weight."""
        turn, state = self._turn, self._state
        norm, mean_square, mass = (state[name] for name in STATE)
        # what rounding leaves of an update that was all removed is no direction
        length_sq = torch.where(sums[0] > self._noise_sq, sums[0], 0.0)
        mean_square.lerp_(length_sq / turn.lr**2, 1 - turn.beta)
        mass.lerp_(torch.ones_like(mass), 1 - turn.beta)
        rms = (mean_square / mass).sqrt()
        reach = turn.angle * norm * _blocks.inverse(rms, rms) / turn.lr
        # the update is at right angles to the weight: no need to measure the sum
        longer = torch.hypot(self._size, reach * length_sq.sqrt())
        keep = norm * _blocks.inverse(longer, longer)
        push = torch.where(self._free, 1.0, keep * reach)
        keep = torch.where(self._free, turn.keep, keep)
        self._update.mul_(push.to(self._update.dtype))
        self._update.addcmul_(self._before, keep.to(self._update.dtype))
        if self._update is not self._param:
            self._param.copy_(self._update)

    def _numel(self) -> int:
        return math.prod(self._param.shape[dim] for dim in self._dims)

    def _sum(self, tensor: Tensor) -> Tensor:
        return tensor.sum(self._dims, keepdim=True)

    def _norm(self, tensor: Tensor) -> Tensor:
        return _norm(tensor, self._dims)


def check_options(per: str, beta: float) -> None:
    """Refuse options that make no sense; NaN fails every test.

    Raises:
        ValueError: an option is out of range.
    """
    if per not in PER:
        known = ", ".join(f"'{each}'" for each in PER)
        raise ValueError(f"per must be one of {known}, got {per!r}")
    if not 0 <= beta < 1:
        raise ValueError(
            f"beta must be in [0, 1), got {beta}; at 1 no update would enter the "
            "running mean, 0 is no mean"
        )


def factor_column(
    make: Callable[[Tensor], float | Tensor] | None, param: Tensor, per: Per
) -> float | Tensor:
    """A parameter's factor of its angle, one number or a column.

    Raises:
        ValueError: there are neither as many numbers as rows nor one.
    """
    factor = 1.0 if make is None else make(param)
    if not isinstance(factor, Tensor) or factor.ndim == 0:
        return factor
    rows = param.shape[0] if param.ndim > 1 else 1
    if per != "row" or factor.numel() != rows:
        raise ValueError(
            f"factor gave {factor.numel()} numbers for a parameter of shape "
            f"{tuple(param.shape)}, which turns per {per}; give a number, or one a row"
        )
    return factor.detach().reshape(rows, *[1] * (_real(param).ndim - 1))


def can_turn(param: Tensor, per: Per) -> bool:
    """Whether blocks have a direction: two elements at least."""
    return _block_numel(param, per) > 1


def center_(param: Tensor, per: Per) -> None:
    """Subtract every block's mean in place and keep its norm.

    A block that this would leave without a direction, because all its entries are
    alike, stays as it is.
    """
    weight, dims = _real(param), _dims(param, per)
    wide = weight.to(_sum_dtype(weight))
    centered = wide - wide.mean(dims, keepdim=True)
    norm, rest = _norm(wide, dims), _norm(centered, dims)
    # what rounding leaves of a constant block is no direction
    pointless = rest <= norm * (16 * torch.finfo(weight.dtype).eps)
    centered = centered * (norm / rest.masked_fill(pointless, 1.0))
    weight.copy_(torch.where(pointless, wide, centered))


def can_center(param: Tensor, per: Per) -> bool:
    """Whether a centred block has a circle to turn on: three elements at least."""
    return _block_numel(param, per) > 2


def _block_numel(param: Tensor, per: Per) -> int:
    rows = param.shape[0] if per == "row" and param.ndim > 1 else 1
    return _real(param).numel() // max(rows, 1)


def _dims(param: Tensor, per: Per) -> tuple[int, ...]:
    """The dimensions of a block; a vector or a number is a single row."""
    first = 1 if per == "row" and param.ndim > 1 else 0
    return tuple(range(first, _real(param).ndim))


def _norm(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(
        tensor, dim=dims, keepdim=True, dtype=_sum_dtype(tensor)
    )
    return norm


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _real(tensor: Tensor) -> Tensor:
    """The tensor, a complex one as its real and imaginary parts."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
