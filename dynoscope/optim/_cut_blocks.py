"""Blocks of weights whose parts lie on several processes."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from dynoscope.optim import _blocks
from dynoscope.optim._blocks import Per
from dynoscope.optim._momentum import Batch
from dynoscope.optim._shards import sum_over_shards

__all__ = ["CutBlocks"]


class CutBlocks:
    """All blocks of a step, so that their sums over the processes travel together.

    Lists have an entry a tensor, the local shard of a DTensor, as in `_blocks`.

    Args:
        groups: the batches of every parameter group that has any.
    """

    def __init__(self, groups: Sequence[Sequence[Batch]]) -> None:
        batches = [batch for group in groups for batch in group]
        self.updates = [
            n for batch in batches for n in _blocks.widened(batch.interpolated())
        ]
        self.params = _blocks.widened([p for batch in batches for p in batch.params])
        self._layouts = [layout for batch in batches for layout in batch.layouts]
        self._spans: list[tuple[Per, slice]] = []
        end = 0
        for group in groups:
            start, end = end, end + sum(len(batch.params) for batch in group)
            self._spans.append((group[0].group["per"], slice(start, end)))

    @cached_property
    def numels(self) -> list[int]:
        """Number of weights of every block, wherever they lie."""
        shapes = [
            param.shape if layout is None else layout.shape
            for param, layout in zip(self.params, self._layouts, strict=True)
        ]
        return [
            numel
            for per, span in self._spans
            for numel in _blocks.numels(shapes[span], per)
        ]

    def squares(self, tensors: list[Tensor]) -> list[Tensor]:
        """Squared norms of the parts that this process holds, for `complete`."""
        return [
            norm.square()
            for per, span in self._spans
            for norm in _blocks.norms(tensors[span], _part(per))
        ]

    def dots(self) -> list[Tensor]:
        """Products of weights and updates of the parts held here, for `complete`."""
        return [
            dot
            for per, span in self._spans
            for param, update in zip(self.params[span], self.updates[span], strict=True)
            # an update not yet normalized: float32 might not hold the product
            for dot in _blocks.dots([param.double()], [update.double()], _part(per))
        ]

    def complete(self, *sums: list[Tensor]) -> None:
        """Turn sums over parts, in place, into those over whole blocks.

        It is one collective for all of them, in every mesh dimension that cuts.
        """
        pers = [per for per, span in self._spans for _ in self._layouts[span]]
        sum_over_shards(
            [part for parts in sums for part in parts],
            self._layouts * len(sums),
            pers * len(sums),
        )
        for per, span in self._spans:
            for parts in sums if per == "group" else ():
                home = parts[span][0].device
                whole = torch.stack([part.to(home) for part in parts[span]]).sum()
                for part in parts[span]:
                    part.copy_(whole)

    def normalize(self, squares: list[Tensor], *, ulps: float = 0.0) -> list[Tensor]:
        """Scale every update, in place, to a root mean square of 1 in its blocks.

        Args:
            squares: of the updates, complete.
            ulps: the root mean square, in units in the last place of 1, that counts
                as 0 like in `_blocks.normalize`.

        Returns:
            The factors, in the dtype of the update.
        """
        factors = []
        columns = zip(self.updates, squares, self.numels, strict=True)
        for update, square, numel in columns:
            least = ulps * torch.finfo(update.dtype).eps
            size = (square / max(numel, 1)).sqrt()
            factors.append(_blocks.inverse(size, update, least=least))
            update.mul_(factors[-1])
        return factors


def _part(per: Per) -> Per:
    """The part of a block that lies in one tensor."""
    return "row" if per == "row" else "tensor"
