"""Layers that are summed together: small ones stacked, large ones in pieces."""

import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from dynoscope.measurement import Sum
from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.sums.tensors import (
    SecondMoments,
    Tensors,
    count_far,
    count_nonfinite,
    flat,
    sum_units,
    unit_rows,
)

__all__ = ["Apart", "Block", "Large", "Scratch", "Stack", "Views"]

Views: TypeAlias = Sequence[Tensor]
"""Columns of a packed tensor: of its sums, row sums and channel quantities."""


class Block(Protocol):
    """Some layers that are summed together.

    Attributes:
        sums: has their columns.
        is_finite: whether their weights, gradients and momenta were and are finite,
            after a step; None if it is for the sums to say.
    """

    sums: Tensor
    is_finite: bool | None

    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """Take the sums of what is there before the step; keep the weights.

        If it is done `again`, the weights are those that were kept.
        """

    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """Take the sums of what the step has changed."""

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """Count NaN and infinite entries, after the step; `after` comes before."""


class Stack:
    """Small layers as the rows of a matrix, shorter ones padded by 0: a column each.

    Zeros change no sum and no maximum. Layers with rows of their own are of one
    shape, and need no padding.
    """

    is_finite: bool | None = None

    def __init__(self, specs: Sequence[Spec], views: Views) -> None:
        self._parameters = [spec.parameter for spec in specs]
        self._sizes = [spec.numel for spec in specs]
        self.sums, row_sums, self._channels = views
        self._with_channels = sum(spec.channels for spec in specs)  # they come first
        width = max(self._sizes)
        self._unit_length = specs[0].row_length or width
        self._unit_sums = row_sums if specs[0].rows else unit_rows(self.sums)
        self._inputs = self.sums.new_zeros(3, len(specs), width)
        self._old, self._grad, self._momentum = self._inputs
        self._products = torch.empty_like(self._inputs)
        self._limits: tuple[float, ...] = ()
        self._update, self._product = torch.zeros_like(self._inputs[:2])
        self._root = torch.ones_like(self._old)  # a divisor: 1, not 0, where padded
        buffers = (self._old, self._grad, self._momentum, self._update, self._root)
        self._slots = {id(buffer): self._cut(buffer) for buffer in buffers}

    @torch.no_grad()
    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """See `Block`."""
        known = any(m is not None for m in momenta)
        if not again:
            self._fill(self._old, self._parameters)
        self._fill(self._grad, grads)
        if known:
            self._fill(self._momentum, momenta)
            self._dot(self._momentum, self._momentum, Sum.MOMENTUM_SQ)
        # Weight, gradient and momentum times gradient: three rows in one go.
        inputs, products = self._inputs[: 2 + known], self._products[: 2 + known]
        torch.mul(inputs, self._grad, out=products)
        torch.sum(products, 2, out=self.sums[Sum.WEIGHT_GRAD :][: 2 + known])
        weight, grad = torch.abs(inputs[:2], out=products[:2])
        torch.amax(weight, 1, out=self.sums[Sum.WEIGHT_MAX])
        torch.sum(grad, 1, out=self.sums[Sum.GRAD_ABS])
        if min(limits) < math.inf:
            count_far(weight, self._thresholds(limits), grad, self.sums)

    @torch.no_grad()
    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """See `Block`."""
        old, grad, update = self._old, self._grad, self._update
        self._fill(update, self._parameters)
        update.sub_(old)
        sum_units(old, update, self._product, self._unit_length, self._unit_sums)
        self._dot(grad, update, Sum.GRAD_UPDATE)
        moved = torch.ne(update, 0, out=self._product)  # counting would make integers
        torch.sum(moved, 1, out=self.sums[Sum.MOVED])
        if kept := self._with_channels:
            for row, x in enumerate((grad, old, update)):
                torch.cat(self._slots[id(x)][:kept], out=self._channels[row])
        if any(second is not None for second in seconds):
            self._take_scaled(seconds)

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """See `Block`."""
        count_nonfinite(self._parameters, grads, momenta, self.sums)

    def _take_scaled(self, seconds: SecondMoments) -> None:
        """Take the sums of the gradient scaled by its second moment."""
        root, scaled = self._root, self._update  # the update is done with
        self._fill(root, [second and second.v for second in seconds], absent=math.inf)
        root.sqrt_()
        # Layers that took equally many steps are the rule: one call does for all.
        alike = len({second and second[1:] for second in seconds}) == 1
        slots = [root] if alike else self._slots[id(root)]
        for slot, second in zip(slots, seconds, strict=False):
            if second is not None:
                slot.div_(second.correction).add_(second.eps)
        torch.div(self._grad, root, out=scaled)
        self._dot(scaled, scaled, Sum.SCALED_GRAD_SQ)
        self._dot(self._old, scaled, Sum.WEIGHT_SCALED_GRAD)

    def _thresholds(self, limits: Sequence[float]) -> Tensor:
        """Limits as a column; a copy to the device only when they have changed."""
        if self._limits != tuple(limits):
            self._limits = tuple(limits)
            column = torch.tensor(limits, dtype=self._old.dtype, device="cpu")
            if self._old.is_cuda:
                column = column.pin_memory()  # else the copy may wait for the device
            self._column = column.unsqueeze(1).to(self._old.device, non_blocking=True)
        return self._column

    def _cut(self, buffer: Tensor) -> list[Tensor]:
        """One view per layer of its part of a buffer."""
        return [row[:size] for row, size in zip(buffer, self._sizes, strict=True)]

    def _fill(self, buffer: Tensor, tensors: Tensors, absent: float = 0.0) -> None:
        slots, flats = [], []
        for slot, x, like in zip(
            self._slots[id(buffer)], tensors, self._parameters, strict=True
        ):
            if x is None:
                slot.fill_(absent)
            else:
                slots.append(slot)
                flats.append(flat(x, like))
        if flats:
            torch._foreach_copy_(slots, flats)

    def _dot(self, a: Tensor, b: Tensor, row: Sum) -> None:
        torch.sum(torch.mul(a, b, out=self._product), 1, out=self.sums[row])


class Scratch:
    """Reused buffers for one piece, so that steady state allocates nothing."""

    def __init__(self, size: int, like: Tensor) -> None:
        self._buffers = like.new_empty(5, size)

    def take(self, slot: int, size: int) -> Tensor:
        """Buffer `slot`, cut to `size` elements."""
        return self._buffers[slot, :size]

    def cast(self, slot: int, x: Tensor) -> Tensor:
        """`x` in the accumulation dtype: itself, or a copy in buffer `slot`."""
        if x.dtype == self._buffers.dtype:
            return x
        return self.take(slot, x.numel()).copy_(x)


class Large:
    """A large layer, cut into pieces; a column each."""

    is_finite: bool | None = None

    def __init__(
        self, spec: Spec, views: Views, scratch: Scratch, kept: Tensor
    ) -> None:
        self._parameter, self._cuts = spec.parameter, spec.cuts
        self._scratch = scratch
        self.sums, row_sums, _ = views
        self._out = [column.unbind() for column in self.sums.unbind(1)]
        self._unit_lengths = [spec.row_length or cut for cut in self._cuts]
        unit_sums = row_sums if spec.rows else unit_rows(self.sums)
        counts = [c // n for c, n in zip(self._cuts, self._unit_lengths, strict=True)]
        self._unit_sums = unit_sums.split(counts, 1)
        self._saved = kept.split(self._cuts)

    @torch.no_grad()
    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """See `Block`."""
        weights = self._saved if again else self._pieces(self._parameter)
        gradients, momentum = self._pieces(grads[0]), self._pieces(momenta[0])
        for k, w in enumerate(weights):
            if not again:
                self._saved[k].copy_(w)
            g = gradients[k] if gradients else None
            m = momentum[k] if momentum else None
            self._before_piece(w, g, m, limits[0], self._out[k])

    def _before_piece(
        self,
        w: Tensor,
        g: Tensor | None,
        m: Tensor | None,
        limit: float,
        out: Sequence[Tensor],
    ) -> None:
        cast = self._scratch.cast
        magnitude = self._scratch.take(3, w.numel())
        w = cast(0, w)
        torch.amax(torch.abs(w, out=magnitude), 0, out=out[Sum.WEIGHT_MAX])
        if limit < math.inf:
            count_far(magnitude, limit, self._scratch.take(4, w.numel()), out)
        if g is not None:
            g = cast(1, g)
            torch.sum(torch.abs(g, out=magnitude), 0, out=out[Sum.GRAD_ABS])
            torch.dot(g, g, out=out[Sum.GRAD_SQ])
            torch.dot(w, g, out=out[Sum.WEIGHT_GRAD])
        if m is not None:
            m = cast(2, m)
            torch.dot(m, m, out=out[Sum.MOMENTUM_SQ])
            if g is not None:
                torch.dot(m, g, out=out[Sum.MOMENTUM_GRAD])

    @torch.no_grad()
    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """See `Block`."""
        gradients, second = self._pieces(grads[0]), seconds[0]
        squares = self._pieces(second and second.v)
        for k, w in enumerate(self._pieces(self._parameter)):
            update = self._after_piece(k, w)
            if gradients:
                g = self._scratch.cast(1, gradients[k])
                torch.dot(g, update, out=self._out[k][Sum.GRAD_UPDATE])
                if second is not None:
                    offset = second.eps * second.correction
                    self._scaled_piece(k, g, squares[k], offset)
        if second is not None:  # the pieces left the bias correction to the end
            self.sums[Sum.SCALED_GRAD_SQ].mul_(second.correction**2)
            self.sums[Sum.WEIGHT_SCALED_GRAD].mul_(second.correction)

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """See `Block`."""
        count_nonfinite([self._parameter], grads, momenta, self.sums)

    def _after_piece(self, k: int, w: Tensor) -> Tensor:
        scratch, size, out = self._scratch, w.numel(), self._out[k]
        old, product = scratch.cast(0, self._saved[k]), scratch.take(3, size)
        update = torch.sub(scratch.cast(2, w), old, out=scratch.take(4, size))
        sum_units(old, update, product, self._unit_lengths[k], self._unit_sums[k])
        sign = torch.sign(update, out=product)
        torch.dot(sign, sign, out=out[Sum.MOVED])
        return update

    def _scaled_piece(
        self, k: int, g: Tensor, v: Tensor, offset: float | Tensor
    ) -> None:
        scratch, out = self._scratch, self._out[k]
        old = scratch.cast(0, self._saved[k])
        root = torch.sqrt(scratch.cast(2, v), out=scratch.take(3, g.numel()))
        scaled = torch.div(g, root.add_(offset), out=root)
        torch.dot(scaled, scaled, out=out[Sum.SCALED_GRAD_SQ])
        torch.dot(old, scaled, out=out[Sum.WEIGHT_SCALED_GRAD])

    def _pieces(self, x: Tensor | None) -> Sequence[Tensor]:
        return () if x is None else flat(x, self._parameter).split(self._cuts)


class Apart:
    """Layers one by one: a column each."""

    is_finite: bool | None = None

    def __init__(
        self, specs: Sequence[Spec], views: Views, kept: Sequence[Tensor]
    ) -> None:
        self.sums = views[0]
        larger = [spec.numel for spec in specs if not spec.is_small]
        scratch = Scratch(max(larger, default=0), self.sums)
        columns = zip(*(spec.columns(0).widths for spec in specs), strict=True)
        parts = [v.split(c, 1) for v, c in zip(views, columns, strict=True)]
        self._blocks: list[Block] = [
            Stack([spec], own) if spec.is_small else Large(spec, own, scratch, place)
            for spec, own, place in zip(
                specs, zip(*parts, strict=True), kept, strict=True
            )
        ]

    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """See `Block`."""
        for k, block in enumerate(self._blocks):
            block.before([grads[k]], [momenta[k]], [limits[k]], again=again)

    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """See `Block`."""
        for k, block in enumerate(self._blocks):
            block.after([grads[k]], [seconds[k]])

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """See `Block`."""
        for k, block in enumerate(self._blocks):
            block.count([grads[k]], [momenta[k]])
