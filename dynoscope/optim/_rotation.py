"""Turning the blocks of a parameter towards an update, their norm kept."""

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from dynoscope.optim._blocks import inverse, widened
from dynoscope.optim._turned_blocks import Blocks, complete
from dynoscope.sharding import local

__all__ = ["STATE", "Turn", "Turning", "turn_all"]

STATE: Final = ("rotation_norm", "rotation_mean_square", "rotation_mass")
"""What is kept of a parameter: n, the running mean of ||D||^2, and its weights' sum.

The mean starts at 0; divided by the sum of its weights, 1 - beta^t, it is unbiased.
"""


class Turn(NamedTuple):
    """How a parameter turns in a step.

    Attributes:
        blocks: what turns of it.
        center: whether every block's mean is taken out of its update.
        beta: weight of the past in the mean square of updates.
        angle: eta_r in radians; a number, or a column.
        lr: learning rate that the update contains.
        keep: 1 - lr * weight_decay, for blocks that have no direction.
        from_zero: whether the update was taken with weights of 0.
    """

    blocks: Blocks
    center: bool
    beta: float
    angle: float | Tensor
    lr: float
    keep: float
    from_zero: bool


class Turning:
    """The turn of one parameter, in two halves with sums to take before each.

    Args:
        shard: holds the inner optimizer's update, without decay; and the result.
        before: the weight before the step; of the same shape and dtype.
        turn: how to turn.
        state: the parameter's state; gains `STATE`.
    """

    def __init__(
        self, shard: Tensor, before: Tensor, turn: Turn, state: dict[str, Any]
    ) -> None:
        self._shard, self.turn, self._state = shard, turn, state
        # 16 bits are turned in 32, so that a factor keeps its digits
        self._before, self._update = widened([before, shard])

    def first_sums(self) -> Tensor:
        """Sums of w^2, D w, D and w over every block, stacked; they add up."""
        blocks, update, before = self.turn.blocks, self._update, self._before
        sums = [blocks.sum_of_squares(before), blocks.sum(update * before)]
        if self.turn.center:
            sums += [blocks.sum(update), blocks.sum(before)]
        return torch.stack(sums)

    def straighten(self, sums: Tensor) -> None:
        """Take the mean and the part along the weight out of the update."""
        squares, along, *totals = sums
        self._size, numel = squares.sqrt(), self.turn.blocks.numel
        if STATE[0] not in self._state:
            self._start()
        self._free = local(self._state["rotation_norm"]) == 0
        removed_sq = torch.zeros_like(squares)
        if totals:
            mean = (totals[0] / numel).masked_fill(self._free, 0.0)
            removed_sq = mean.square() * numel
            along = along - mean * totals[1]
            self._update.sub_(mean.to(self._update.dtype))
        # 0 where the weight is too small for its dtype to be at right angles to
        shrink = inverse(self._size, self._update).to(along.dtype)
        share = (along * shrink * shrink).masked_fill(self._free, 0.0)
        share = share.to(self._update.dtype).nan_to_num(0.0, 0.0, 0.0)
        self._update.addcmul_(self._before, share, value=-1)
        removed_sq = removed_sq + along.square() * shrink.square()
        self._noise_sq = removed_sq * (16 * torch.finfo(self._update.dtype).eps) ** 2

    def second_sums(self) -> Tensor:
        """Sum of D^2 over every block; they add up."""
        return self.turn.blocks.sum_of_squares(self._update)

    def rotate(self, length_sq: Tensor) -> None:
        """Turn, and write the weight."""
        turn = self.turn
        if turn.lr == 0:  # the update is 0 and has no direction
            self._shard.copy_(self._before)
            return
        norm, mean_square, mass = (local(self._state[name]) for name in STATE)
        # what rounding leaves of an update that was all removed is no direction
        length_sq = torch.where(length_sq > self._noise_sq, length_sq, 0.0)
        mean_square.lerp_(length_sq / turn.lr**2, 1 - turn.beta)
        mass.lerp_(torch.ones_like(mass), 1 - turn.beta)
        rms = (mean_square / mass).sqrt()
        reach = turn.angle * norm * inverse(rms, rms) / turn.lr
        # the update is at right angles to the weight: no need to measure the sum
        longer = torch.hypot(self._size, reach * length_sq.sqrt())
        keep = norm * inverse(longer, longer)
        push = torch.where(self._free, 1.0, keep * reach)
        keep = torch.where(self._free, turn.keep, keep)
        self._update.mul_(push.to(self._update.dtype))
        self._update.addcmul_(self._before, keep.to(self._update.dtype))
        if self._update is not self._shard:
            self._shard.copy_(self._update)

    def _start(self) -> None:
        """Keep the norms of now, and nothing of updates."""
        columns = self._size.clone(), torch.zeros_like(self._size)
        whole = map(self.turn.blocks.whole_column, columns)
        self._state.update(zip(STATE, (*whole, self._size.new_zeros(())), strict=True))


def turn_all(turnings: list[Turning]) -> None:
    """Turn parameters: one after the other, those in shards together.

    A parameter by itself stays in the cache; shards share two collectives for every
    mesh dimension that cuts a block.
    """
    together = [turning for turning in turnings if turning.turn.blocks.layout]
    alone = [[turning] for turning in turnings if not turning.turn.blocks.layout]
    for members in [*alone, together]:
        blocks = [turning.turn.blocks for turning in members]
        sums = [turning.first_sums() for turning in members]
        complete(sums, blocks)
        for turning, its_sums in zip(members, sums, strict=True):
            turning.straighten(its_sums)
        sums = [turning.second_sums() for turning in members]
        complete(sums, blocks)
        for turning, its_sums in zip(members, sums, strict=True):
            turning.rotate(its_sums)
