"""Tensors to packed sums, on the device.

The one place that touches a training's tensors. It reads them, writes only to
buffers of its own, draws no random number, and never waits for a device.

A large layer is walked in pieces that fit the cache, so that weight, gradient
and momentum come from memory once and every sum over a piece is taken while it
is there; short pieces also keep float32 sums accurate (relative error below
1e-6, 1e-5 for bfloat16 values, whatever the size of the layer). Small layers of one shape are stacked and
summed together, since for them the calls cost more than the numbers.
"""

import collections
import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.measurement import UNIT_SUMS, Host, Sum
from dynoscope.metrics.packing import Columns, Packing

__all__ = ["Kernel", "Spec"]

PIECE: Final = 1 << 18
"""Elements of a piece on the CPU: small enough for the cache, large enough to split."""

SMALL: Final = 1 << 15
"""Layers of up to this many elements are stacked with others of their shape."""

LONG: Final = 1 << 14
"""Above this length a norm, taken in one pass, would lose float32 accuracy."""

Tensors: TypeAlias = Sequence[Tensor | None]


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to take from one parameter.

    Attributes:
        parameter: the tensor to watch.
        rows: whether its output rows are measured one by one.
        channels: whether its elements are kept one by one (a normalization bias).
    """

    parameter: Tensor
    rows: bool = False
    channels: bool = False

    @property
    def is_small(self) -> bool:
        """Whether it is stacked with others, not cut into pieces."""
        return self.channels or self.parameter.numel() <= SMALL

    @property
    def row_length(self) -> int:
        """Elements of an output row, 0 where rows are not measured."""
        return math.prod(self.parameter.shape[1:]) if self.rows else 0

    @property
    def cuts(self) -> list[int]:
        """Sizes of its pieces, each of whole rows."""
        numel = self.parameter.numel()
        if self.is_small or self.parameter.device.type != "cpu":
            return [numel]
        row = self.row_length or 1
        size = min(max(PIECE // row, 1) * row, numel)
        return [size] * (numel // size) + [numel % size] * (numel % size > 0)

    def columns(self, layer: int) -> Columns:
        """What it owns of the packed tensor."""
        return Columns(
            layer,
            pieces=len(self.cuts),
            rows=self.parameter.shape[0] if self.rows else 0,
            channels=self.parameter.numel() if self.channels else 0,
        )


class Kernel:
    """The sums of some parameters, before and after an optimizer step.

    Call `before`, let the optimizer step, call `after`; then `ship` starts one
    asynchronous copy per device and returns a function that waits for the
    numbers, to be called on any thread. Arguments are in the order of the
    specs; None stands for a tensor that does not exist, whose sums are 0.
    """

    def __init__(self, specs: Sequence[Spec]) -> None:
        wide = any(spec.parameter.dtype == torch.float64 for spec in specs)
        dtype = torch.float64 if wide else torch.float32
        self._parameters = [spec.parameter for spec in specs]
        devices: dict[torch.device, list[list[int]]] = collections.defaultdict(list)
        for group in _groups(specs):
            devices[specs[group[0]].parameter.device].append(group)
        self._packing = Packing(
            [
                [specs[i].columns(i) for group in groups for i in group]
                for groups in devices.values()
            ]
        )
        self._packs: list[_Pack] = []
        self._blocks: list[tuple[list[int], _Block, _Pack]] = []
        for device, groups in devices.items():
            pack = _Pack(self._packing.shapes(len(self._packs)), dtype, device)
            self._packs.append(pack)
            cuts = (cut for group in groups for cut in specs[group[0]].cuts)
            scratch = _Scratch(max(cuts), pack)
            for group in groups:
                members = [specs[i] for i in group]
                self._blocks.append((group, _block(members, pack, scratch), pack))

    @property
    def nbytes(self) -> int:
        """Host bytes that one step's numbers hold until they are fetched."""
        return sum(pack.flat.nbytes for pack in self._packs)

    @torch.no_grad()
    def before(self, grads: Tensors, momenta: Tensors) -> None:
        """Take what needs the momenta before the step; keep the weights."""
        for pack in self._packs:
            pack.flat.zero_()
        for group, block, _ in self._blocks:
            block.before([grads[i] for i in group], [momenta[i] for i in group])

    @torch.no_grad()
    def after(self, grads: Tensors, momenta: Tensors) -> None:
        """Take what needs the weights after the step."""
        for group, block, _ in self._blocks:
            block.after([grads[i] for i in group])
        # Counting costs a pass over everything. Where looking at a number is
        # free, do it only when a sum says that there is something to count.
        dirty = {pack for pack in self._packs if not pack.is_known_finite()}
        for group, block, pack in self._blocks:
            if pack in dirty:
                for k, i in enumerate(group):
                    tensors = (self._parameters[i], grads[i], momenta[i])
                    block.sums[Sum.NONFINITE, k] = _count_nonfinite(tensors)

    def ship(self) -> Callable[[], Host]:
        """Start the copies to the host; give a function that waits for them."""
        waits = [pack.ship() for pack in self._packs]
        return lambda: self._packing.unpack([wait() for wait in waits])


class _Pack:
    """One device's packed tensor, and its copies on the host."""

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        sizes = [math.prod(shape) for shape in shapes]
        self.flat = torch.zeros(sum(sizes), dtype=dtype, device=device)
        parts = self.flat.split(sizes)
        self._parts = [p.view(s) for p, s in zip(parts, shapes, strict=True)]
        self._claimed = [0, 0, 0]
        self._pinned: collections.deque[Tensor] = collections.deque()

    def claim(self, specs: Iterable[Spec]) -> list[Tensor]:
        """The next free columns of sums, row sums and channel quantities."""
        columns = [spec.columns(0) for spec in specs]
        widths = (
            sum(c.pieces for c in columns),
            sum(c.rows for c in columns),
            sum(c.channels for c in columns),
        )
        views = []
        for k, width in enumerate(widths):
            views.append(self._parts[k].narrow(1, self._claimed[k], width))
            self._claimed[k] += width
        return views

    def is_known_finite(self) -> bool:
        """Whether all is finite; False where asking would wait for a device."""
        return self.flat.device.type == "cpu" and bool(self.flat.isfinite().all())

    def ship(self) -> Callable[[], npt.NDArray[Any]]:
        """Start a copy to the host; give a function that waits for it."""
        if self.flat.device.type != "cuda":
            copy = self.flat.to("cpu", copy=True).numpy()
            return lambda: copy
        host = self._pinned.pop() if self._pinned else _pinned_like(self.flat)
        host.copy_(self.flat, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.flat.device))

        def wait() -> npt.NDArray[Any]:
            event.synchronize()
            numbers = host.numpy().copy()
            self._pinned.append(host)
            return numbers

        return wait


class _Block(Protocol):
    """Some layers that are summed together; `sums` has their columns."""

    sums: Tensor

    def before(self, grads: Tensors, momenta: Tensors) -> None: ...

    def after(self, grads: Tensors) -> None: ...


class _Stack:
    """Small layers of one size as the rows of a matrix; a column each."""

    def __init__(self, specs: Sequence[Spec], pack: _Pack) -> None:
        self._parameters = [spec.parameter for spec in specs]
        self.sums, row_sums, self._channels = pack.claim(specs)
        self._with_channels = sum(spec.channels for spec in specs)  # they come first
        size = specs[0].parameter.numel()
        self._unit_length = specs[0].row_length or size
        self._unit_sums = row_sums if specs[0].rows else _unit_rows(self.sums)
        self._inputs = self.sums.new_zeros(3, len(specs), size)
        self._old, self._grad, self._momentum = self._inputs
        self._products = torch.empty_like(self._inputs)
        self._update, self._product = torch.empty_like(self._inputs[:2])
        self._absent = self.sums.new_zeros(size)

    def before(self, grads: Tensors, momenta: Tensors) -> None:
        known = any(m is not None for m in momenta)
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

    def after(self, grads: Tensors) -> None:
        old, grad, update = self._old, self._grad, self._update
        self._fill(update, self._parameters)
        update.sub_(old)
        _sum_units(old, update, self._product, self._unit_length, self._unit_sums)
        self._dot(grad, update, Sum.GRAD_UPDATE)
        self.sums[Sum.MOVED].copy_(torch.count_nonzero(update, 1))
        if kept := self._with_channels:
            for row, x in enumerate((grad, old, update)):
                self._channels[row].copy_(x[:kept].view(-1))

    def _fill(self, buffer: Tensor, tensors: Tensors) -> None:
        flats = [
            self._absent if x is None else _flat(x, like)
            for x, like in zip(tensors, self._parameters, strict=True)
        ]
        torch.stack(flats, out=buffer)

    def _dot(self, a: Tensor, b: Tensor, row: Sum) -> None:
        torch.sum(torch.mul(a, b, out=self._product), 1, out=self.sums[row])


class _Scratch:
    """Reused buffers for one piece, so that steady state allocates nothing."""

    def __init__(self, size: int, pack: _Pack) -> None:
        self._buffers = pack.flat.new_empty(5, size)

    def take(self, slot: int, size: int) -> Tensor:
        """Buffer `slot`, cut to `size` elements."""
        return self._buffers[slot, :size]

    def cast(self, slot: int, x: Tensor) -> Tensor:
        """`x` in the accumulation dtype: itself, or a copy in buffer `slot`."""
        if x.dtype == self._buffers.dtype:
            return x
        return self.take(slot, x.numel()).copy_(x)


class _Large:
    """A large layer, cut into pieces; a column each."""

    def __init__(self, spec: Spec, pack: _Pack, scratch: _Scratch) -> None:
        self._parameter, self._cuts = spec.parameter, spec.cuts
        self._scratch = scratch
        self.sums, row_sums, _ = pack.claim([spec])
        self._out = [column.unbind() for column in self.sums.unbind(1)]
        self._unit_lengths = [spec.row_length or cut for cut in self._cuts]
        unit_sums = row_sums if spec.rows else _unit_rows(self.sums)
        counts = [c // n for c, n in zip(self._cuts, self._unit_lengths, strict=True)]
        self._unit_sums = unit_sums.split(counts, 1)
        flat = _flat(spec.parameter, spec.parameter)
        self._saved = torch.empty_like(flat).split(self._cuts)

    def before(self, grads: Tensors, momenta: Tensors) -> None:
        weights = self._pieces(self._parameter)
        gradients, momentum = self._pieces(grads[0]), self._pieces(momenta[0])
        for k, w in enumerate(weights):
            self._saved[k].copy_(w)
            g = gradients[k] if gradients else None
            m = momentum[k] if momentum else None
            self._before_piece(w, g, m, self._out[k])

    def _before_piece(
        self, w: Tensor, g: Tensor | None, m: Tensor | None, out: Sequence[Tensor]
    ) -> None:
        cast = self._scratch.cast
        magnitude = self._scratch.take(3, w.numel())
        w = cast(0, w)
        torch.amax(torch.abs(w, out=magnitude), 0, out=out[Sum.WEIGHT_MAX])
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

    def after(self, grads: Tensors) -> None:
        gradients = self._pieces(grads[0])
        for k, w in enumerate(self._pieces(self._parameter)):
            update = self._after_piece(k, w)
            if gradients:
                g = self._scratch.cast(1, gradients[k])
                torch.dot(g, update, out=self._out[k][Sum.GRAD_UPDATE])

    def _after_piece(self, k: int, w: Tensor) -> Tensor:
        scratch, size, out = self._scratch, w.numel(), self._out[k]
        old, product = scratch.cast(0, self._saved[k]), scratch.take(3, size)
        update = torch.sub(scratch.cast(2, w), old, out=scratch.take(4, size))
        _sum_units(old, update, product, self._unit_lengths[k], self._unit_sums[k])
        sign = torch.sign(update, out=product)
        torch.dot(sign, sign, out=out[Sum.MOVED])
        return update

    def _pieces(self, x: Tensor | None) -> Sequence[Tensor]:
        return () if x is None else _flat(x, self._parameter).split(self._cuts)


def _unit_rows(sums: Tensor) -> Tensor:
    """UNIT_SUMS where a unit is a whole column of the sums; they are adjacent."""
    return sums[UNIT_SUMS[0] : UNIT_SUMS[-1] + 1]


def _sum_units(
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


def _flat(x: Tensor, like: Tensor) -> Tensor:
    """`x` in 1-d, a view where it can be, its output rows one after the other.

    Elements of all tensors of a layer must meet in the same order: the memory
    order of the parameter `like` where it is dense, else index order.
    """
    x = x.detach()
    if x.is_contiguous() and like.is_contiguous():
        return x.view(-1)
    if not _is_channels_last(like):
        return x.reshape(-1)
    if x.stride() != like.stride():
        x = torch.empty_like(like, dtype=x.dtype).copy_(x)
    return x.as_strided((x.numel(),), (1,))


def _is_channels_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.dim() in formats and x.is_contiguous(memory_format=formats[x.dim()])


def _count_nonfinite(tensors: Tensors) -> Tensor:
    """How many entries of all `tensors` together are NaN or infinite."""
    counts = [x.isfinite().logical_not_().sum() for x in tensors if x is not None]
    return torch.stack(counts).sum()


def _pinned_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True)


def _groups(specs: Sequence[Spec]) -> list[list[int]]:
    """Indices of the layers that are summed together."""
    groups: dict[Hashable, list[int]] = collections.defaultdict(list)
    for i, spec in enumerate(specs):
        key = (spec.parameter.device, spec.row_length, spec.parameter.numel())
        groups[key if spec.is_small else i].append(i)
    return [sorted(g, key=lambda i: not specs[i].channels) for g in groups.values()]


def _block(specs: Sequence[Spec], pack: _Pack, scratch: _Scratch) -> _Block:
    if specs[0].is_small:
        return _Stack(specs, pack)
    return _Large(specs[0], pack, scratch)
