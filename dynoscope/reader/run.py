"""One run, as pandas frames."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.errors import DynoscopeError
from dynoscope.metrics.grokking import GrokkingGap, grokking_gap
from dynoscope.reader.bulk import Bulk
from dynoscope.reader.cursor import Cursor
from dynoscope.reader.cuts import branches_of
from dynoscope.reader.files import read_table
from dynoscope.reader.manifest import read_manifest
from dynoscope.reader.rollup import is_roll_up, members_of, roll_up_frame
from dynoscope.reader.selection import (
    Names,
    Steps,
    both,
    chosen_columns,
    in_order,
    in_steps,
    is_in,
    listed,
)
from dynoscope.reader.sources import retried, sources_in
from dynoscope.reader.summary import SUMMARISED, Summary, summarise
from dynoscope.remote import Replica, Store, is_uri
from dynoscope.schema import TABLES
from dynoscope.schema.cost import Cost, cost_of
from dynoscope.schema.folder import BRANCHES
from dynoscope.schema.process import is_gone

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Run", "open_run"]


class Run(Bulk):
    """A run, finished or being written; every call reads it afresh.

    Get one from `dynoscope.open_run`.

    Attributes:
        path: the run's folder, or its URI.
        folder: the folder that is read: the same, or a copy of what is at the URI.
    """

    def __init__(self, place: Path | Replica, path: Path | str | None = None) -> None:
        self._replica = place if isinstance(place, Replica) else None
        self.folder = place.folder if isinstance(place, Replica) else place
        known_as = place.uri if isinstance(place, Replica) else place
        self.path: Path | str = known_as if path is None else path
        self._manifest = self.manifest

    def __repr__(self) -> str:
        """Path and status."""
        return f"<dynoscope run {str(self.path)!r}: {self.status}>"

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def staleness(self) -> str:
        """Why this may not be how a remote run is now, "" if nothing is wrong."""
        return self._replica.problem if self._replica is not None else ""

    @property
    def manifest(self) -> dict[str, Any]:
        """All of `run.json`, as it is now."""
        if self._replica is not None:
            self._replica.manifest()
        self._manifest = read_manifest(self.folder, self.path)
        return self._manifest

    @property
    def config(self) -> dict[str, Any]:
        """What the user gave as `config=`."""
        config: dict[str, Any] = self._manifest["config"]
        return config

    @property
    def status(self) -> str:
        """`running`, `finished`, `failed`, `lost` (process gone) or `superseded`."""
        manifest = self.manifest
        seen = self._replica.looked if self._replica is not None else None
        if manifest["status"] != "running" or not is_gone(manifest, seen):
            return str(manifest["status"])
        # It may have ended well between the two looks.
        status = str(self.manifest["status"])
        return "lost" if status == "running" else status

    @property
    def exception(self) -> str | None:
        """Text of the exception that ended a failed run."""
        text: str | None = self.manifest["exception"]
        return text

    @property
    def cost(self) -> Cost:
        """What watching has cost, up to the run's last heartbeat."""
        return cost_of(self._manifest)

    @property
    def problems(self) -> list[str]:
        """What the run recorded of errors of dynoscope's own."""
        return list(self.manifest["problems"])

    @property
    def layer_names(self) -> list[str]:
        """Names of the watched parameters, in the model's order."""
        return [layer["name"] for layer in self._manifest["layers"]]

    @property
    def last_step(self) -> int | None:
        """Highest step recorded, None if there is none."""
        self._bring("groups")
        folder = self.folder / "groups"
        ends = retried(folder, lambda: [s.steps() for s in sources_in(folder, [])])
        return max((last for _, last in filter(None, ends)), default=None)

    @property
    def branches(self) -> list[Run]:
        """What resumed trainings have superseded, the oldest first: runs like this."""
        self._bring("groups")
        below = [f"{BRANCHES}/{name}" for name in branches_of(self.folder)]
        if self._replica is not None:
            return [Run(self._replica.below(name)) for name in below]
        return [Run(self.folder / name) for name in below]

    def layers(
        self, metric: Names = None, layer: Names = None, steps: Steps = None
    ) -> pd.DataFrame:
        """Metrics of layers: one row per measured step and layer.

        Args:
            metric: one column or several; None for all.
            layer: parameters (`features.0.weight`), modules (`features.*`) or the
                whole model (`*`), one or several; None for all parameters.
                Modules are rolled up exactly from their layers.
            steps: a step, `(start, stop)`, a slice or a range; stop is excluded.

        Returns:
            Columns `step`, `layer` and the metrics, sorted by step, layers in the
            order asked for (the model's order if not).

        Raises:
            DynoscopeError: no such metric or layer; the message lists the choices.
        """
        names = self.layer_names if layer is None else listed(layer)
        plain = [name for name in names if not is_roll_up(name)]
        frames = [self._rows("layers", metric, plain, steps)] if plain else []
        for name in names:
            if is_roll_up(name):
                members = members_of(name, self.layer_names)
                self.check_layers([name] if not members else members)
                rows = self._rows("layers", None, members, steps)
                chosen = chosen_columns("layers", metric)
                frames.append(roll_up_frame(name, rows, self._manifest)[chosen])
        return in_order(frames, names)

    def neurons(
        self, metric: Names = None, layer: Names = None, steps: Steps = None
    ) -> pd.DataFrame:
        """Statistics over the neurons of each layer; see `layers`."""
        return self._rows("neurons", metric, layer, steps)

    def normalization(
        self, metric: Names = None, layer: Names = None, steps: Steps = None
    ) -> pd.DataFrame:
        """Channels of normalization layers, named by bias or weight; see `layers`."""
        return self._rows("normalization", metric, layer, steps)

    def histograms(self, layer: Names = None, steps: Steps = None) -> pd.DataFrame:
        """Histograms, recorded where asked for; counts and edges are arrays."""
        return self._rows("histograms", None, layer, steps)

    def groups(self, steps: Steps = None) -> pd.DataFrame:
        """Hyperparameters in force: one row per measured step and group."""
        return self._frame(self.table("groups", where=in_steps(steps)))

    def scalars(self, name: Names = None, steps: Steps = None) -> pd.DataFrame:
        """What was logged: columns step, wall_time, name, value."""
        where = both(in_steps(steps), is_in("name", name))
        frame = self._frame(self.table("scalars", where=where))
        return frame.sort_values("step", kind="stable", ignore_index=True)

    def grokking_gap(
        self,
        train: str,
        validation: str,
        threshold: float = 1.0,
        *,
        falling: bool = False,
    ) -> GrokkingGap:
        """Steps between two logged numbers reaching a threshold.

        Args:
            train: name of the training score, as it was logged.
            validation: name of the validation score.
            threshold: the value to reach, such as an accuracy of 1.
            falling: whether a smaller value is the better one, as of a loss.

        Returns:
            Both steps and the gap; NaN for one that did not get there.

        Raises:
            DynoscopeError: nothing was logged under a name; the message lists what
                was.
        """
        series = [self._series(name) for name in (train, validation)]
        return grokking_gap(series[0], series[1], threshold, falling=falling)

    def _series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        rows = self.scalars(name)
        if rows.empty:
            logged = ", ".join(sorted(self.scalars()["name"].unique()))
            raise DynoscopeError(
                f"nothing was logged as {name!r} in {self.path}; there is: {logged}"
            )
        return rows["step"].to_numpy(), rows["value"].to_numpy()

    def full_gradients(
        self, metric: Names = None, layer: Names = None, steps: Steps = None
    ) -> pd.DataFrame:
        """Full gradients measured on demand, of layers and of `*`; see `layers`."""
        known = [*self.layer_names, "*"]
        return self._rows("full_gradients", metric, layer, steps, known)

    def invariance(self, layer: Names = None, steps: Steps = None) -> pd.DataFrame:
        """Scale invariance probed on demand; see `layers`."""
        return self._rows("invariance", None, layer, steps)

    def activity(self, steps: Steps = None) -> pd.DataFrame:
        """Dead channels counted on demand: one row per count and module."""
        return self._frame(self.table("activity", where=in_steps(steps)))

    def constraint(self, layer: Names = None, steps: Steps = None) -> pd.DataFrame:
        """Lion's constraint measured on demand, of layers and of `*`; see `layers`."""
        return self._rows("constraint", None, layer, steps, [*self.layer_names, "*"])

    def findings(self) -> pd.DataFrame:
        """What rules found while the run was recorded, each layer once a rule.

        Returns:
            Columns step, layer, rule, severity, message, evidence (a dict) and source.
        """
        frame = self._frame(self.table("findings"))
        # A run that was resumed by an older dynoscope may have found the same again.
        frame = frame.drop_duplicates(["rule", "layer"], ignore_index=True)
        frame["evidence"] = frame["evidence"].map(json.loads)
        return frame

    def summary(self) -> Summary:
        """The run in one row: settings, last losses, rotation, findings, cost."""
        for table in SUMMARISED:
            self._bring(table)
        return summarise(self)

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """A table as Arrow has it, in the order in which it was written.

        Args:
            name: one of `dynoscope.schema.TABLES`.
            columns: columns to read, None for all.
            where: which rows to keep.

        Warns:
            DynoscopeWarning: names each file that is damaged and was skipped.
        """
        return self._read(name, columns, where)

    def _read(
        self,
        name: str,
        columns: Sequence[str] | None,
        where: pc.Expression | None,
        *,
        as_written: bool = True,
    ) -> pa.Table:
        if name not in TABLES:
            raise DynoscopeError(f"no table {name!r}; there are: {', '.join(TABLES)}")
        self._bring(name)
        table, problems = read_table(
            self.folder, name, columns, where, in_order=as_written
        )
        self.warn_of(problems)
        return table

    def cursor(self, table: str, columns: Sequence[str] | None = None) -> Cursor:
        """A cursor over a table, which gives each row once, as it comes.

        Args:
            table: name of the table.
            columns: columns to read, `step` among them; None for all.
        """
        return Cursor(self.folder, table, self._bring, columns)

    def _bring(self, table: str) -> None:
        """Bring the copy of a remote run's table up to date."""
        if self._replica is not None:
            self._replica.table(table)

    def _rows(
        self,
        table: str,
        metric: Names,
        layer: Names,
        steps: Steps,
        known: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        known = self.layer_names if known is None else known
        if layer is not None:
            self.check_layers(listed(layer), known)
        where = both(in_steps(steps), is_in("layer", layer))
        rows = self._read(table, chosen_columns(table, metric), where, as_written=False)
        return in_order([self._frame(rows)], known if layer is None else listed(layer))

    @staticmethod
    def _frame(table: pa.Table) -> pd.DataFrame:
        frame: pd.DataFrame = table.to_pandas()
        return frame


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run, finished or being written.

    Args:
        path: the run's folder, or its URI, such as `s3://bucket/runs/lion`.

    Raises:
        RunNotFoundError: there is no readable run; the message says why.
        StoreError: what is at a URI cannot be read; the message says why.
    """
    return Run(Replica(Store(str(path))) if is_uri(path) else Path(path))
