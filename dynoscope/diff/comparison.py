"""All metrics of two runs' layers and modules, compared in one pass over the rows."""

import bisect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.stretches import Stretch
from dynoscope.diff.tally import Tally
from dynoscope.metrics.members import Members
from dynoscope.reader.rollup import is_roll_up, roll_ups_columns
from dynoscope.reader.turns import as_of_last_turns, reach_of, turns_of
from dynoscope.schema import TABLES

__all__ = ["Comparison", "Pairing"]

LAST: Final = chr(sys.maxunicode)
"""Comes after all other letters."""

Array: TypeAlias = npt.NDArray[Any]


class Pairing:
    """What of two runs belongs together.

    Args:
        names_a: run a's layers.
        names_b: run b's.
        modules: roll-ups that both have, the whole model first; none if the table
            has none.
        manifests: of both runs, which know what layers take turns.

    Attributes:
        names: layers of a, and of b, in alphabetic order: so a module's are together.
        shared: layers that both have, in alphabetic order.
        places: where they are among a's, and among b's.
        same_as: for each module itself; or the layer, or another module, that has just
            the same layers in both runs, and so the same metrics.
        modules: those that are only the same as themselves, sorted by size.
        members: which layers of a, and of b, make each of them.
        reach: measured steps after which a layer's last turn is too long ago to count
            for its modules; 0 where no layers take turns.
        turns: of the layers of a, and of b.
    """

    def __init__(
        self,
        names_a: Sequence[str],
        names_b: Sequence[str],
        modules: Sequence[str] = (),
        manifests: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.names = sorted(names_a), sorted(names_b)
        self.turns = [
            turns_of(manifest, names)
            for manifest, names in zip(manifests, self.names, strict=bool(manifests))
        ]
        self.reach = max(map(reach_of, self.turns), default=0)
        self.shared = sorted({*names_a} & {*names_b})
        ranges = {
            name: tuple(_range(name, its) for its in self.names)
            for name in [*self.shared, *modules]
        }
        first = {its: name for name, its in reversed(ranges.items())}
        self.same_as = {name: first[ranges[name]] for name in modules}
        if modules:
            self.same_as["*"] = "*"  # its curves are kept
        alone = [name for name, other in self.same_as.items() if name == other]
        self.modules = sorted(alone, key=lambda name: _by_size(ranges[name][0]))
        self.members = tuple(
            Members([ranges[name][side] for name in self.modules]) for side in (0, 1)
        )
        places = [{name: i for i, name in enumerate(names)} for names in self.names]
        self.places = [np.array([at[name] for name in self.shared]) for at in places]


def _rolled(
    columns: Mapping[str, Array], turns: Array, members: Members
) -> dict[str, Array]:
    """Columns of modules x steps from those of layers x steps, in float64."""
    if reach_of(turns):
        turned = as_of_last_turns(turns, {name: x.T for name, x in columns.items()})
        columns = {name: x.T for name, x in turned.items()}
    wide = {name: _wide(x) for name, x in columns.items()}
    return roll_ups_columns(wide, members)


def _wide(values: Array) -> Array:
    """The same in float64, and as it was in next to no memory if it was."""
    if values.strides == (0, 0):
        return np.broadcast_to(values[0, 0].astype(np.float64), values.shape)
    return values.astype(np.float64)


def _by_size(layers: range) -> tuple[int, int]:
    return len(layers), layers.start


def _range(name: str, layers: Sequence[str]) -> range:
    """Where a layer is among layers in alphabetic order, or those of a module are."""
    start = bisect.bisect_left(layers, name.removesuffix("*"))
    if not is_roll_up(name):
        return range(start, start + 1)
    return range(start, bisect.bisect_left(layers, name.removesuffix("*") + LAST))


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
            self._take(stretch)
        self.steps += len(stretch.steps)
        for known, grid in zip(self.problems, stretch[:2], strict=True):
            known.update(dict.fromkeys(grid.problems))
        return self

    def _take(self, stretch: Stretch) -> None:
        columns, steps = (stretch.a.columns(), stretch.b.columns()), stretch.steps
        here = np.s_[:, stretch.lead :]
        for name, tally in self._layers.items():
            tally.add(steps, *self._shared([each[name][here] for each in columns]))
        if not self.pairing.modules:
            return
        rolled_a, rolled_b = (
            _rolled(its, turns, who)
            for its, turns, who in zip(
                columns, self.pairing.turns, self.pairing.members, strict=True
            )
        )
        whole = self.pairing.modules.index("*")
        curves: dict[str, npt.NDArray[np.generic]] = {"step": steps}
        for name, tally in self._modules.items():
            of_a, of_b = rolled_a[name][here], rolled_b[name][here]
            tally.add(steps, of_a, of_b)
            curves[f"{name}_a"] = of_a[whole].copy()
            curves[f"{name}_b"] = of_b[whole].copy()
        self._curves.append(curves)

    def _shared(self, columns: Sequence[Array]) -> Iterator[Array]:
        """Layers that both have, of a and of b."""
        for array, at in zip(columns, self.pairing.places, strict=True):
            yield array if len(at) == len(array) else array[at]

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
        return self._rows(order, order)

    def modules(self) -> pd.DataFrame:
        """The same of the roll-ups."""
        same_as = self.pairing.same_as
        return self._rows(list(same_as.values()), list(same_as))

    def _rows(self, which: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
        """Rows of some layers or modules, under new names."""
        known = [*self.pairing.shared, *self.pairing.modules]
        place = {name: i for i, name in enumerate(known)}
        at = [place[name] for name in which]
        frames = []
        for metric, tally in self._layers.items():
            frame = tally.frame(self.pairing.shared)
            if self.pairing.modules:
                more = self._modules[metric].frame(self.pairing.modules)
                frame = pd.concat([frame, more])
            frames.append(frame.iloc[at].assign(layer=list(names)))
        layer = np.tile(np.arange(len(at)), len(frames))
        frame = pd.concat(frames, ignore_index=True)
        return frame.take(np.argsort(layer, kind="stable")).reset_index(drop=True)

    def curves(self) -> pd.DataFrame:
        """The whole models' metrics at each step."""
        columns = {
            name: np.concatenate([part[name] for part in self._curves])
            for name in self._curves[0]
        }
        return pd.DataFrame(columns)
