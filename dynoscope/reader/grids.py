"""A stretch of a table as arrays of layers x steps, with as few copies as can be.

In a segment, a row group holds some layers with the same steps each: it is such an
array as it lies there. What does not lie so is put where it belongs, row by row.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader.footers import Window
from dynoscope.reader.sources import Source, numbers, retried, sources_in

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
    _names: Sequence[str]
    _tiles: Sequence[_Tile]

    def part(self, start: int, stop: int) -> "Grid":
        """Some of the steps, from one to before another, by their position."""
        tiles = []
        for tile in self._tiles:
            first, last = max(tile.steps.start, start), min(tile.steps.stop, stop)
            if first < last:
                cut = slice(first - tile.steps.start, last - tile.steps.start)
                columns = {name: x[:, cut] for name, x in tile.columns.items()}
                place = slice(first - start, last - start)
                tiles.append(_Tile(tile.layers, place, columns))
        steps = self.steps[start:stop]
        return Grid(steps, self.layers, self.problems, self._names, tiles)

    def columns(self) -> dict[str, Array]:
        """All columns; NaN where there is no row.

        Returns:
            Arrays of shape (layers, steps), float32 or float64, not to be written to.
            What is the same everywhere may be a view of one number.
        """
        shape = self.layers, len(self.steps)
        area = sum(_length(tile.layers) * _length(tile.steps) for tile in self._tiles)
        is_full = area == shape[0] * shape[1]
        found = {}
        for name in self._names:
            parts = [tile.columns[name] for tile in self._tiles]
            if is_full and _are_one(parts):
                found[name] = np.broadcast_to(parts[0][0, 0], shape)
                continue
            dtype = np.result_type(np.float32, *(part.dtype for part in parts))
            array = np.empty(shape, dtype) if is_full else np.full(shape, np.nan, dtype)
            for tile, part in zip(self._tiles, parts, strict=True):
                array[tile.layers, tile.steps] = part
            found[name] = array
        return found


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
    wanted = _Wanted(columns, pa.array(layers, pa.string()), steps)
    problems: list[str] = []

    def look() -> list[_Tile | _Rows]:
        problems.clear()
        found: list[_Tile | _Rows] = []
        for source in sources_in(folder, problems):
            known, its = len(problems), wanted.parts_of(source, problems)
            found += its if len(problems) == known else []
        return found

    parts = retried(folder, look)
    tiles = [part for part in parts if isinstance(part, _Tile)]
    if len(tiles) < len(parts) or _any_meet(tiles):
        tiles = [wanted.joined(parts)]
    return Grid(steps, len(layers), problems, columns, tiles)


class _Rows(NamedTuple):
    """Rows, and where each of them belongs in an array of layers x steps, flat."""

    at: IntArray
    columns: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is asked for of a table."""

    columns: Sequence[str]
    names: pa.Array
    steps: IntArray

    def parts_of(self, source: Source, problems: list[str]) -> list[_Tile | _Rows]:
        """What a file has of it."""
        window = Window(None, int(self.steps[0]), int(self.steps[-1]) + 1)
        ends = source.steps()
        if ends is None or ends[0] >= window.stop or ends[1] < window.start:
            return []
        columns = ["step", "layer", *self.columns]
        pieces = source.pieces(columns, window, problems)
        return [self._part(piece) for piece in pieces if len(piece)]

    def joined(self, parts: Sequence[_Tile | _Rows]) -> _Tile:
        """All in one; of two rows for one place the last counts."""
        shape = len(self.names), len(self.steps)
        arrays = {}
        for name in self.columns:
            found = [part.columns[name] for part in parts]
            dtype = np.result_type(np.float32, *(values.dtype for values in found))
            array = np.full(shape, np.nan, dtype)
            for part, values in zip(parts, found, strict=True):
                if isinstance(part, _Tile):
                    array[part.layers, part.steps] = values
                else:
                    array.reshape(-1)[part.at] = values
            arrays[name] = _spared(array)
        return _Tile(slice(0, shape[0]), slice(0, shape[1]), arrays)

    def _part(self, piece: pa.Table) -> _Tile | _Rows:
        layer, step = _layers_of(piece, self.names), piece["step"].to_numpy()
        values = {name: _floats(piece, name) for name in self.columns}
        tile = self._tile(values, layer, step)
        if tile is not None:
            return tile
        at = np.searchsorted(self.steps, step)
        at[at == len(self.steps)] = 0
        rows = np.flatnonzero((layer >= 0) & (self.steps[at] == step))
        at = layer[rows] * len(self.steps) + at[rows]
        return _Rows(at, {name: array[rows] for name, array in values.items()})

    def _tile(
        self, values: Mapping[str, Array], layer: IntArray, step: IntArray
    ) -> _Tile | None:
        """Rows of consecutive layers with the same steps each; None if they are not."""
        width = int((layer != layer[0]).argmax()) or len(layer)
        count, rest = divmod(len(layer), width)
        if rest or layer[0] < 0:
            return None
        by_layer, by_step = layer.reshape(count, width), step.reshape(count, width)
        there, layers = by_step[0], np.arange(layer[0], layer[0] + count)
        if (by_layer != layers[:, None]).any() or (by_step != there).any():
            return None
        start, stop = np.searchsorted(self.steps, [there[0], there[-1] + 1]).tolist()
        at = np.searchsorted(there, self.steps[start:stop])
        if (np.diff(there) <= 0).any() or (there[at] != self.steps[start:stop]).any():
            return None  # a step is there twice, or one that is wanted is not
        chosen = slice(None) if len(at) == width else at
        arrays = {
            name: _spared(array.reshape(count, width)[:, chosen])
            for name, array in values.items()
        }
        where = slice(int(layers[0]), int(layers[-1]) + 1)
        return _Tile(where, slice(start, stop), arrays)


def _any_meet(tiles: Sequence[_Tile]) -> bool:
    return any(a.meets(b) for a, b in itertools.combinations(tiles, 2))


def _layers_of(table: pa.Table, names: pa.Array) -> IntArray:
    """The position of each row's layer, -1 if it is not wanted."""
    curves = table["layer"].combine_chunks()
    if not pa.types.is_dictionary(curves.type):
        curves = curves.dictionary_encode()
    places = pc.index_in(curves.dictionary, value_set=names).fill_null(-1).to_numpy()
    found: IntArray = places.astype(np.int64)[curves.indices.to_numpy()]
    return found


def _floats(piece: pa.Table, name: str) -> Array:
    values = numbers(piece, name)
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _spared(values: Array) -> Array:
    """The same values, in next to no memory where all are one."""
    if not values.size or _differ(values[0, 0], values[-1, -1]):
        return values
    first = values[0, 0]
    same = np.isnan(values) if np.isnan(first) else values == first
    return np.broadcast_to(first, values.shape) if same.all() else values


def _are_one(parts: Sequence[Array]) -> bool:
    """Whether all are views of one number, and that the same."""
    numbers = [part[0, 0] for part in parts if part.strides == (0, 0)]
    if len(numbers) < len(parts):
        return False
    return not any(_differ(number, numbers[0]) for number in numbers[1:])


def _differ(a: Any, b: Any) -> bool:
    return bool(a != b and not (np.isnan(a) and np.isnan(b)))


def _length(part: slice) -> int:
    return int(part.stop - part.start)


def _overlap(a: slice, b: slice) -> bool:
    return bool(a.start < b.stop and b.start < a.stop)
