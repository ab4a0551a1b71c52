"""Where each layer's numbers lie in the packed tensors that a step ships.

A device's packed tensor has three parts: sums, with a column per piece of a
layer; row sums, with a column per output row; and channel quantities, with a
column per channel. `Packing` knows who owns which columns, and puts the numbers
back in the layers' order.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import CHANNEL_QUANTITIES, UNIT_SUMS, FloatArray, Host, Sum
from dynoscope.metrics.turning import Turning, combine_runs

__all__ = ["Columns", "Packing"]


@dataclasses.dataclass(frozen=True)
class Columns:
    """How many columns one layer owns in each part of a packed tensor."""

    layer: int
    pieces: int
    rows: int = 0
    channels: int = 0

    @property
    def widths(self) -> tuple[int, int, int]:
        """Its columns in the parts of a packed tensor."""
        return self.pieces, self.rows, self.channels


class Packing:
    """The columns of every device's packed tensor.

    Args:
        devices: per device, its layers in the order in which they are packed.
    """

    def __init__(self, devices: Sequence[Sequence[Columns]]) -> None:
        owners = list(itertools.chain.from_iterable(devices))
        self._widths = [
            [*map(sum, zip(*(c.widths for c in owned), strict=True))]
            for owned in devices
        ]
        self._layers = np.array([c.layer for c in owners], dtype=np.intp)
        self._piece_starts = _starts([c.pieces for c in owners])
        order = np.argsort(self._layers)
        self._rows = _gather([c.rows for c in owners], order)
        self._channels = _gather([c.channels for c in owners], order)
        row_counts = [owners[k].rows for k in order]
        self._with_rows = np.flatnonzero(row_counts)
        self._row_starts = _starts(row_counts)[self._with_rows]

    def size(self, device: int) -> int:
        """Elements of a device's packed tensor."""
        return sum(h * w for h, w in self.shapes(device))

    def shapes(self, device: int) -> list[tuple[int, int]]:
        """Shapes of its parts: sums, row sums, channel quantities."""
        heights = (len(Sum), len(UNIT_SUMS), len(CHANNEL_QUANTITIES))
        return list(zip(heights, self._widths[device], strict=True))

    def unpack(self, flats: Sequence[npt.NDArray[Any]]) -> Host:
        """Add up pieces; put layers, rows and channels in the layers' order.

        Args:
            flats: per device, its packed tensor on the host, flat: shape (..., size),
                of several steps at once where it has further axes. What is given may
                lie in them still.
        """
        parts = [self._split(k, flat) for k, flat in enumerate(flats)]
        columns, rows, channels = map(_joined, zip(*parts, strict=True))
        sums = np.empty((*columns.shape[:-1], self._layers.size))
        sums[..., self._layers] = np.add.reduceat(columns, self._piece_starts, axis=-1)
        sums[..., Sum.WEIGHT_MAX, self._layers] = np.maximum.reduceat(
            columns[..., Sum.WEIGHT_MAX, :], self._piece_starts, axis=-1
        )
        pieces = Turning(*(columns[..., each, :] for each in UNIT_SUMS))
        turned = [combine_runs(pieces, self._piece_starts)]
        owners = [self._layers]
        rows = _ordered(rows, self._rows)
        if self._with_rows.size:  # their units are rows, not pieces
            units = Turning(*np.moveaxis(rows, -2, 0))
            turned.append(combine_runs(units, self._row_starts))
            owners.append(self._with_rows)
        for layers, whole in zip(owners, turned, strict=True):
            for each, column in zip(UNIT_SUMS, whole, strict=True):
                sums[..., each, layers] = column
        return Host(sums, rows, _ordered(channels, self._channels))

    def _split(self, device: int, flat: npt.NDArray[Any]) -> list[FloatArray]:
        shapes = self.shapes(device)
        ends = np.cumsum([h * w for h, w in shapes])[:-1]
        parts = np.split(flat.astype(np.float64, copy=False), ends, axis=-1)
        return [
            part.reshape(*flat.shape[:-1], *shape)
            for part, shape in zip(parts, shapes, strict=True)
        ]


def _joined(parts: Sequence[FloatArray]) -> FloatArray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _starts(counts: Sequence[int]) -> npt.NDArray[np.intp]:
    """Where each run begins when runs of these lengths follow each other."""
    return np.cumsum([0, *counts[:-1]], dtype=np.intp)


def _ordered(columns: FloatArray, order: npt.NDArray[np.intp] | None) -> FloatArray:
    return columns if order is None else np.take(columns, order, axis=-1)


def _gather(
    counts: Sequence[int], order: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp] | None:
    """Indices that put runs of these lengths into another order; None: they are."""
    starts = _starts(counts)
    runs = [np.arange(starts[k], starts[k] + counts[k]) for k in order]
    found = np.concatenate([[], *runs]).astype(np.intp)
    return None if np.array_equal(found, np.arange(found.size)) else found
