"""A stretch of a table as arrays of layers x steps, decoded with as few copies as can be.

In a segment, a row group holds some layers with the same steps each: it is such an
array as it lies there. What does not lie so is put where it belongs, row by row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader.footers import Window
from dynoscope.reader.sources import numbers, retried, sources_in

__all__ = ["Grid", "read_grid"]

Array: TypeAlias = npt.NDArray[Any]
IntArray: TypeAlias = npt.NDArray[np.int64]


class _Tile(NamedTuple):
    """A rectangle that has a row everywhere: columns of shape (layers, steps)."""

    layers: slice
    steps: slice
    columns: Mapping[str, Array]

    def meets(self, other: "_Tile") -> bool:
        return bool(
            _overlap(self.layers, other.layers) and _overlap(self.steps, other.steps)
        )


@dataclasses.dataclass(frozen=True)
class Grid:
    """Some steps of a table.

    Attributes:
        steps: step numbers, ascending, shape (steps,).
        layers: how many layers there are.
        problems: what could not be read, by file.
    """

    steps: IntArray
    layers: int
    problems: list[str]
    _tiles: Sequence[_Tile]

    @property
    def seams(self) -> list[int]:
        """Layers before which values of other layers cannot be had without a copy."""
        return sorted({tile.layers.start for tile in self._tiles})

    def part(self, start: int, stop: int) -> "Grid":
        """Some of the steps, from one to before another, by their position."""
        tiles = []
        for tile in self._tiles:
            first, last = max(tile.steps.start, start), min(tile.steps.stop, stop)
            if first < last:
                cut = slice(first - tile.steps.start, last - tile.steps.start)
                columns = {name: x[:, cut] for name, x in tile.columns.items()}
                steps = slice(first - start, last - start)
                tiles.append(_Tile(tile.layers, steps, columns))
        return Grid(self.steps[start:stop], self.layers, self.problems, tiles)

    def values(self, name: str, layers: slice) -> Array:
        """A column of some layers; NaN where there is no row.

        Returns:
            Shape (layers, steps), as the file has it: not to be written to.
        """
        for tile in self._tiles:
            start, stop = tile.layers.start, tile.layers.stop
            is_within = start <= layers.start and layers.stop <= stop
            if is_within and _length(tile.steps) == len(self.steps):
                return tile.columns[name][layers.start - start : layers.stop - start]
        return self.filled(name, layers)

    def filled(self, name: str, layers: slice) -> npt.NDArray[np.float64]:
        """The same as float64, a copy."""
        array = np.empty((layers.stop - layers.start, len(self.steps)))
        if sum(_area(tile) for tile in self._tiles) < self.layers * len(self.steps):
            array.fill(np.nan)
        for tile in self._tiles:
            if _overlap(tile.layers, layers):
                first = max(tile.layers.start, layers.start)
                last = min(tile.layers.stop, layers.stop)
                target = slice(first - layers.start, last - layers.start)
                source = slice(first - tile.layers.start, last - tile.layers.start)
                array[target, tile.steps] = tile.columns[name][source]
        return array


def read_grid(
    folder: Path, columns: Sequence[str], layers: Sequence[str], steps: IntArray
) -> Grid:
    """Some steps of a table.

    Args:
        folder: the table's folder.
        columns: its columns to read, numbers.
        layers: names of the layers wanted, in their order: best the alphabetic one.
        steps: the steps wanted, ascending.

    Raises:
        FileNotFoundError: its files are replaced all the time.
    """
    window = Window(None, int(steps[0]), int(steps[-1]) + 1)
    names = pa.array(layers, pa.string())
    problems: list[str] = []

    def look() -> list[pa.Table]:
        problems.clear()
        return [
            table
            for source in sources_in(folder, problems)
            if _meets(source.steps(), window)
            for table in source.pieces(["step", "layer", *columns], window, problems)
            if len(table)
        ]

    tables = retried(folder, look)
    tiles = _tiles(tables, columns, names, steps)
    if tiles is None:
        tiles = [_scattered(tables, columns, names, steps)]
    return Grid(steps, len(names), problems, tiles)


def _meets(ends: tuple[int, int] | None, window: Window) -> bool:
    return ends is not None and ends[0] < window.stop and ends[1] >= window.start


def _tiles(
    tables: Sequence[pa.Table], columns: Sequence[str], names: pa.Array, steps: IntArray
) -> list[_Tile] | None:
    """Tables as tiles; None if one is not, or if two of them meet."""
    tiles: list[_Tile] = []
    for table in tables:
        tile = _tile(table, columns, names, steps)
        if tile is None or any(tile.meets(other) for other in tiles):
            return None
        tiles.append(tile)
    return tiles


def _tile(
    table: pa.Table, columns: Sequence[str], names: pa.Array, steps: IntArray
) -> _Tile | None:
    """A table whose rows are consecutive layers with the same steps each."""
    layer, step = _layers_of(table, names), table["step"].to_numpy()
    width = int((layer != layer[0]).argmax()) or len(layer)
    if layer[0] < 0 or len(layer) % width:
        return None
    count = len(layer) // width
    by_layer, by_step = layer.reshape(count, width), step.reshape(count, width)
    there, last = by_step[0], layer[0] + count
    if (by_layer != np.arange(layer[0], last)[:, None]).any():
        return None
    if (np.diff(there) <= 0).any() or (by_step != there).any():
        return None
    start, stop = np.searchsorted(steps, [there[0], there[-1] + 1]).tolist()
    at = np.searchsorted(there, steps[start:stop])
    if (there[at] != steps[start:stop]).any():
        return None  # a step is wanted that is not there
    is_whole = len(at) and at[-1] - at[0] == len(at) - 1
    chosen = slice(at[0], at[-1] + 1) if is_whole else at
    arrays = {
        name: _spared(numbers(table, name).reshape(count, width)[:, chosen])
        for name in columns
    }
    return _Tile(slice(int(layer[0]), int(last)), slice(start, stop), arrays)


def _scattered(
    tables: Sequence[pa.Table], columns: Sequence[str], names: pa.Array, steps: IntArray
) -> _Tile:
    """Rows in any order, each where it belongs; of two for one place the last counts."""
    shape = len(names), len(steps)
    targets = []
    for table in tables:
        layer, step = _layers_of(table, names), table["step"].to_numpy()
        at = np.searchsorted(steps, step)
        at[at == len(steps)] = 0
        rows = np.flatnonzero((layer >= 0) & (steps[at] == step))
        targets.append((rows, layer[rows] * len(steps) + at[rows]))
    arrays = {}
    for name in columns:
        found = [numbers(table, name) for table in tables]
        flat = np.full(shape[0] * shape[1], np.nan, np.result_type(np.float32, *found))
        for values, (rows, target) in zip(found, targets, strict=True):
            flat[target] = values[rows]
        arrays[name] = _spared(flat.reshape(shape))
    return _Tile(slice(0, shape[0]), slice(0, shape[1]), arrays)


def _layers_of(table: pa.Table, names: pa.Array) -> IntArray:
    """The position of each row's layer, -1 if it is not wanted."""
    curves = table["layer"].combine_chunks()
    if not pa.types.is_dictionary(curves.type):
        curves = curves.dictionary_encode()
    places = pc.index_in(curves.dictionary, value_set=names).fill_null(-1).to_numpy()
    found: IntArray = places.astype(np.int64)[curves.indices.to_numpy()]
    return found


def _spared(values: Array) -> Array:
    """The same values, in next to no memory where all are one."""
    if not values.size or _differ(values[0, 0], values[-1, -1]):
        return values
    first = values[0, 0]
    same = np.isnan(values) if np.isnan(first) else values == first
    return np.broadcast_to(first, values.shape) if same.all() else values


def _differ(a: Any, b: Any) -> bool:
    return bool(a != b and not (np.isnan(a) and np.isnan(b)))


def _area(tile: _Tile) -> int:
    return _length(tile.layers) * _length(tile.steps)


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)
