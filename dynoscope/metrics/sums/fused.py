"""Layers on a CUDA device, all at once, by kernels in Triton.

Every tensor is read once before the step and once after it, in four launches or so for
all layers, and nothing is waited for.
"""

import contextlib
import functools
import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.measurement import BOX_TOLERANCE, Sum
from dynoscope.metrics.sums.addresses import Addresses
from dynoscope.metrics.sums.blocks import Views
from dynoscope.metrics.sums.chunks import LANES, Chunks
from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.sums.tensors import SecondMoments, Tensors
from dynoscope.sharding import local

__all__ = ["CODES", "Fused", "kernels"]

CODES: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""By which numbers the kernels know the dtypes that they read."""

WARPS: Final = 8
"""Of a program that works on `LANES` elements."""

SLOTS: Final = 256
"""Chunks of a layer that are added up at once."""


class Fused:
    """Layers of a part, on one device: a `Block` of one column each.

    Launches are queued on the current stream, in whose order memory is used again.
    """

    is_finite: bool | None = None

    def __init__(
        self, specs: Sequence[Spec], views: Views, kept: Sequence[Tensor]
    ) -> None:
        self._parameters = [spec.parameter for spec in specs]
        self.sums, self._rows, self._channels = views
        self._device = device = self.sums.device
        weights = self._weights()
        self._saved = kept  # of which the device is told where they are
        chunks = Chunks(specs)
        self._plain = _on(device, chunks.plain)
        self._units = {n: _on(device, table) for n, table in chunks.units.items()}
        self._places = _on(device, chunks.places)
        self._kept = _Inputs(kept, device).of(kept)
        self._first_channels = _on(device, _first_channels(specs))
        self._partial = self.sums.new_empty(len(Sum), chunks.slots)
        self._dirty = torch.empty(len(specs), dtype=torch.int32, device=device)
        self._counts = torch.empty(len(specs), dtype=torch.int64, device=device)
        self._inputs = {
            name: _Inputs(weights, device)
            for name in ("weight", "grad", "momentum", "second")
        }
        self._limits, self._divisors = _Copy(device), _Copy(device)
        self._corrections = _Copy(device)

    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """See `Block`."""
        # as the weights would have it: the nearest float32
        nearest = np.array(limits, np.float32).astype(float)
        nearest[np.isinf(nearest)] = np.nan  # of which nothing is beyond
        boxes = np.column_stack([nearest, nearest * (1 - BOX_TOLERANCE)])
        with _launching(self._device) as launch:
            launch.before[len(self._plain),](
                self._plain,
                self._kept if again else self._table("weight", self._weights()),
                self._kept,
                self._table("grad", grads),
                self._table("momentum", momenta),
                self._limits.of(boxes.astype(np.float32)),
                self._partial,
                self._partial.stride(0),
                lanes=LANES,
                num_warps=WARPS,
            )
        self._let_go()

    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """See `Block`."""
        divisors, corrections = _divisors(seconds, self._device)
        with _launching(self._device) as launch:
            inputs = (
                self._table("weight", self._weights()),
                self._kept,
                self._table("grad", grads),
                self._table("second", [second and second.v for second in seconds]),
                self._divisors.of(divisors),
                self._corrections.of(
                    np.array([0 if c is None else c.data_ptr() for c in corrections])
                ),
                self._first_channels,
            )
            outputs = (self._partial, self._rows, self._channels)
            for at_once, table in self._units.items():
                launch.after[len(table),](
                    table,
                    *inputs,
                    *(x for out in outputs for x in (out, out.stride(0))),
                    units=at_once,
                    width=LANES // at_once,
                    num_warps=WARPS,
                )
            launch.gather[len(self._parameters),](
                self._places,
                self._partial,
                self._partial.stride(0),
                self.sums,
                self.sums.stride(0),
                self._dirty,
                self._counts,
                lanes=SLOTS,
            )
        self._let_go()

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """See `Block`."""
        with _launching(self._device) as launch:
            launch.count[len(self._plain),](
                self._plain,
                self._table("weight", self._weights()),
                self._table("grad", grads),
                self._table("momentum", momenta),
                self._dirty,
                self._counts,
                lanes=LANES,
                num_warps=WARPS,
            )
            self.sums[Sum.NONFINITE].copy_(self._counts)
        self._let_go()

    def _table(self, name: str, tensors: Tensors) -> Tensor:
        return self._inputs[name].of(tensors)

    def _let_go(self) -> None:
        """Keep no gradient alive; the device has what it needs in its queue."""
        self._inputs["grad"].let_go()

    def _weights(self) -> list[Tensor]:
        """The weights that are here; shards may have moved."""
        return [local(parameter) for parameter in self._parameters]


class _Copy:
    """A small table on a device, copied there when it has changed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: npt.NDArray[Any] | None = None

    def of(self, table: npt.NDArray[Any]) -> Tensor:
        if self._last is None or not np.array_equal(table, self._last):
            self._last = table.copy()
            self._copy = _on(self._device, self._last)
        return self._copy


class _Inputs:
    """Where one tensor of each layer lies, as a table on the device."""

    def __init__(self, like: Sequence[Tensor], device: torch.device) -> None:
        self._addresses, self._copy = Addresses(like, CODES), _Copy(device)
        self.let_go = self._addresses.let_go

    def of(self, tensors: Tensors) -> Tensor:
        return self._copy.of(self._addresses.point_to(tensors))


def _on(device: torch.device, table: npt.NDArray[Any]) -> Tensor:
    """A copy on the device, on its way in the order of the current stream."""
    host = torch.from_numpy(table)
    if device.type == "cuda":
        host = host.pin_memory()  # else the copy may wait for the device
    return host.to(device, non_blocking=True)


def _first_channels(specs: Sequence[Spec]) -> npt.NDArray[np.int64]:
    """Per layer, where its channels begin; -1 where it has none."""
    counts = np.array([spec.columns(0).channels for spec in specs])
    return np.where(counts > 0, np.cumsum(counts) - counts, -1)


@functools.cache
def kernels() -> ModuleType:
    """The kernels, and Triton with them.

    Raises:
        ImportError: there is no Triton.
    """
    return importlib.import_module("dynoscope.metrics.sums.triton_kernels")


@contextlib.contextmanager
def _launching(device: torch.device) -> Iterator[ModuleType]:
    """The kernels, for launches on the current stream of a device."""
    on_cuda = device.type == "cuda"
    with torch.cuda.device(device) if on_cuda else contextlib.nullcontext():
        yield kernels()


def _divisors(
    seconds: SecondMoments, device: torch.device
) -> tuple[npt.NDArray[np.float32], list[Tensor | None]]:
    """Bias correction and eps of each; and the corrections that are on the device."""
    table = np.ones((len(seconds), 2), np.float32)
    elsewhere: list[Tensor | None] = []
    for row, second in zip(table, seconds, strict=True):
        correction = 1.0 if second is None else second.correction
        row[1] = 0.0 if second is None else second.eps
        if isinstance(correction, Tensor):
            elsewhere.append(correction.to(device, torch.float32, non_blocking=True))
        else:
            row[0] = correction
            elsewhere.append(None)
    return table, elsewhere
