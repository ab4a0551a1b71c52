"""Layers in chunks, as tables in which the programs of a GPU find their work."""

import collections
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dynoscope.metrics.sums.spec import Spec

__all__ = ["LANES", "Chunks"]

LANES: Final = 2048
"""Elements that a program works on at once."""

CHUNK: Final = 4 * LANES
"""Elements of a chunk that is not made of rows."""

WIDTHS: Final = (8, 32, 128, 512, LANES)
"""Elements of a row that are worked on at once; a kernel is compiled for each."""

Table: TypeAlias = npt.NDArray[np.int64]


class Chunks:
    """Chunks of some layers.

    A row of a table is: the layer; the chunk's first element there; how many units it
    has, and elements of each; the row that the first unit is (-1: it is none); and its
    slot, where its sums go. A unit is an output row where rows are measured, else the
    whole chunk. The slots of a layer follow each other.

    Attributes:
        plain: chunks without regard to rows.
        units: chunks of whole units, by how many are worked on at once.
        places: per layer, its first slot and the one after its last, among `plain` and
            then among `units`.
        slots: how many slots there are at most.
    """

    def __init__(self, specs: Sequence[Spec]) -> None:
        plain: list[Table] = []
        units: dict[int, list[Table]] = collections.defaultdict(list)
        places, row, slot, unit_slot = [], 0, 0, 0
        for layer, spec in enumerate(specs):
            elements = _chunks(layer, spec.numel, 1, CHUNK, None, slot)
            found, at_once = elements.copy(), 1
            if length := spec.row_length:
                at_once = LANES // min(w for w in WIDTHS if w >= min(length, LANES))
                rows = spec.shape[0]
                found = _chunks(layer, rows, length, at_once, row, unit_slot)
                row += rows
            else:
                found[:, 5] += unit_slot - slot
            plain.append(elements)
            units[at_once].append(found)
            ends = slot + len(elements), unit_slot + len(found)
            places.append((slot, ends[0], unit_slot, ends[1]))
            slot, unit_slot = ends
        self.plain = np.concatenate(plain)
        self.units = {k: np.concatenate(tables) for k, tables in units.items()}
        self.places = np.array(places, np.int64)
        self.slots = max(slot, unit_slot)


def _chunks(
    layer: int, count: int, length: int, size: int, row: int | None, slot: int
) -> Table:
    """Chunks of up to `size` of a layer's `count` rows; or, without rows, elements."""
    starts = np.arange(0, count, size, dtype=np.int64)
    sizes = np.minimum(size, count - starts)
    is_rows = row is not None
    columns = (
        np.full_like(starts, layer),
        starts * length,
        sizes if is_rows else np.ones_like(starts),
        np.full_like(starts, length) if is_rows else sizes,
        starts + row if row is not None else np.full_like(starts, -1),
        slot + np.arange(len(starts)),
    )
    return np.column_stack(columns)
