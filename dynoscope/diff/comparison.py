"""All metrics of two runs' layers and modules, compared in one pass over the rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.stretches import Stretch
from dynoscope.diff.tally import Tally
from dynoscope.measurement import FloatArray
from dynoscope.metrics.members import Members
from dynoscope.reader import Grid
from dynoscope.reader.rollup import members_of, roll_ups_columns
from dynoscope.schema import TABLES

__all__ = ["Comparison", "Pairing"]

CHUNK: Final = 1 << 16
"""Numbers that are looked at in one go: they stay in the processor's cache."""

ROLLED: Final = 1 << 16
"""Rows that are rolled up in one go: some 40 MB."""


class Pairing:
    """What of two runs belongs together.

    Args:
        names_a: run a's layers.
        names_b: run b's.
        modules: roll-ups that both have, the whole model first; none if the table
            has none.

    Attributes:
        names: layers of a, and of b, in alphabetic order: so a module's are together.
        shared: layers that both have, in alphabetic order.
        modules: those given, sorted by size.
        members: which layers of a, and of b, make each of them.
        order: the modules as given.
    """

    def __init__(
        self,
        names_a: Sequence[str],
        names_b: Sequence[str],
        modules: Sequence[str] = (),
    ) -> None:
        self.names = sorted(names_a), sorted(names_b)
        self.shared = sorted({*names_a} & {*names_b})
        slices = [
            {name: _consecutive(members_of(name, names), names) for name in modules}
            for names in self.names
        ]
        self.modules = sorted(modules, key=lambda name: _by_size(slices[0][name]))
        self.members = tuple(
            Members([its[name] for name in self.modules]) for its in slices
        )
        self.order = modules
        places = [{name: i for i, name in enumerate(names)} for names in self.names]
        self._at = [np.array([at[name] for name in self.shared]) for at in places]

    def chunks(self, most: int) -> Iterator[tuple[int, slice, slice]]:
        """Shared layers, at most so many at a time, consecutive ones in both runs.

        Yields:
            The number of the first one, and where they are in a and in b.
        """
        breaks = np.zeros(len(self.shared), bool)
        for at in self._at:
            breaks[1:] |= np.diff(at) != 1
        breaks[0] = True
        starts = np.flatnonzero(breaks).tolist()
        for start, stop in zip(starts, [*starts[1:], len(breaks)], strict=True):
            for first in range(start, stop, most):
                count = min(most, stop - first)
                a, b = (int(at[first]) for at in self._at)
                yield first, slice(a, a + count), slice(b, b + count)


def _by_size(layers: slice) -> tuple[int, int]:
    return layers.stop - layers.start, layers.start


def _consecutive(some: Sequence[str], names: Sequence[str]) -> slice:
    start = names.index(some[0])
    return slice(start, start + len(some))


class Comparison:
    """Two runs' rows of a table, as far as they have been compared.

    Args:
        table: `layers` or `normalization`.
        metrics: its columns that are compared.
        pairing: what belongs together.
        threshold: when two numbers count as different.
        earlier: what is known of steps that come before; see `Tally`.

    Attributes:
        table, pairing: as given.
        columns: columns of the table that are needed.
        steps: how many steps have been compared.
        problems: what could not be read of a, and of b, by file, each once.
    """

    def __init__(
        self,
        table: str,
        metrics: Sequence[str],
        pairing: Pairing,
        threshold: float,
        earlier: "Comparison | None" = None,
    ) -> None:
        self._given = table, metrics, pairing, threshold
        self.table, self.pairing = table, pairing
        self.columns = ["numel", *metrics] if pairing.modules else list(metrics)
        self.steps = 0
        self.problems: tuple[dict[str, None], dict[str, None]] = {}, {}
        self._layers: dict[str, Tally] = {}
        self._modules: dict[str, Tally] = {}
        for name in metrics:
            metric = TABLES[table][name]
            of_layers = earlier._layers[name] if earlier else None
            of_modules = earlier._modules[name] if earlier else None
            layers, modules = len(pairing.shared), len(pairing.modules)
            self._layers[name] = Tally(metric, layers, threshold, of_layers)
            self._modules[name] = Tally(metric, modules, threshold, of_modules)
        self._curves: list[dict[str, npt.NDArray[np.generic]]] = []

    def later(self) -> "Comparison":
        """One of later steps, that is to be merged into this."""
        return Comparison(*self._given, earlier=self)

    def take(self, stretch: Stretch) -> Self:
        """Compare some steps, after all earlier ones."""
        with np.errstate(all="ignore"):  # infinite numbers are compared, too
            most = max(1, CHUNK // len(stretch.steps))
            for start, in_a, in_b in self.pairing.chunks(most):
                for name, tally in self._layers.items():
                    a, b = stretch.a.values(name, in_a), stretch.b.values(name, in_b)
                    tally.add(stretch.steps, a, b, start)
            if self.pairing.modules:
                self._take_modules(stretch)
        self.steps += len(stretch.steps)
        for known, grid in zip(self.problems, stretch, strict=True):
            known.update(dict.fromkeys(grid.problems))
        return self

    def _take_modules(self, stretch: Stretch) -> None:
        grids, whole = (stretch.a, stretch.b), self.pairing.modules.index("*")
        width = max(1, ROLLED // max(grid.layers for grid in grids))
        for start in range(0, len(stretch.steps), width):
            parts = [grid.part(start, start + width) for grid in grids]
            a, b = (
                _rolled(part, self.columns, members)
                for part, members in zip(parts, self.pairing.members, strict=True)
            )
            steps = parts[0].steps
            curves: dict[str, npt.NDArray[np.generic]] = {"step": steps}
            for name, tally in self._modules.items():
                tally.add(steps, a[name], b[name])
                curves[f"{name}_a"] = a[name][whole].copy()
                curves[f"{name}_b"] = b[name][whole].copy()
            self._curves.append(curves)

    def merge(self, later: "Comparison") -> None:
        """Take in what was found of later steps."""
        for mine, its in (
            (self._layers, later._layers),
            (self._modules, later._modules),
        ):
            for name, tally in mine.items():
                tally.merge(its[name])
        self._curves += later._curves
        self.steps += later.steps
        for known, new in zip(self.problems, later.problems, strict=True):
            known.update(new)

    def layers(self, order: Sequence[str]) -> pd.DataFrame:
        """All metrics of the first layer, then of the second, and so on."""
        return _interleaved(self._layers, self.pairing.shared, order)

    def modules(self) -> pd.DataFrame:
        """The same of the roll-ups."""
        return _interleaved(self._modules, self.pairing.modules, self.pairing.order)

    def curves(self) -> pd.DataFrame:
        """The whole models' metrics at each step."""
        columns = {
            name: np.concatenate([part[name] for part in self._curves])
            for name in self._curves[0]
        }
        return pd.DataFrame(columns)


def _rolled(
    grid: Grid, names: Sequence[str], members: Members
) -> dict[str, FloatArray]:
    everything = slice(0, grid.layers)
    columns = {name: grid.filled(name, everything) for name in names}
    return roll_ups_columns(columns, members)


def _interleaved(
    tallies: Mapping[str, Tally], names: Sequence[str], order: Sequence[str]
) -> pd.DataFrame:
    frames = [tally.frame(list(names)) for tally in tallies.values()]
    frame = pd.concat(frames, ignore_index=True)
    rank = {name: i for i, name in enumerate(order)}
    layer = np.tile([rank[name] for name in names], len(tallies))
    return frame.take(np.argsort(layer, kind="stable")).reset_index(drop=True)
