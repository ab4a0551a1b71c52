"""What the dashboard knows of one run; a refresh reads only what is new."""

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dynoscope.dashboard.logged import Logged
from dynoscope.dashboard.rotation import Rotation
from dynoscope.dashboard.snapshots import Snapshots
from dynoscope.dashboard.track import Steps
from dynoscope.dashboard.tracks import Held, Tracks
from dynoscope.findings import Finding
from dynoscope.reader import Run, damage_in
from dynoscope.reader.rollup import is_roll_up, roll_ups_of

__all__ = ["CUMULATIVE", "TOGETHER", "RunState"]

BINNED_ROWS: Final = 1 << 11
"""Histograms taken in at a time: their rows are long."""

CUMULATIVE: Final = ("revived", "revived_k1", "revived_k5")
"""Columns of `normalization` of which the sum so far is shown."""

TOGETHER: Final = ("groups", "normalization")
"""Tables of which all curves are kept together."""


class RunState:
    """Curves of one run, read when a page first looks at them, then fed by cursors.

    What it holds, and what a refresh reads, does not grow with the run. Every method
    may be called from any thread; hold `lock` to make several calls that belong
    together.

    Args:
        run: the run.

    Attributes:
        run: the run.
        manifest: its manifest as it was when the state was made: what is watched
            does not change while a run is written.
        lock: guards everything.
        version: grows with every change.
        curves: by table, what can be asked of `held`: names of layers that have rows
            in it, numbers of groups.
        tracks: the curves that are held.
        snapshots: histograms at a few steps, where they were asked for.
        findings: what rules found, by rule and layer, in the order of finding.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.manifest = run, run.manifest
        self.lock, self.version = threading.RLock(), 0
        layers = self.manifest["layers"]
        self.curves: dict[str, list[Any]] = {
            "layers": [layer["name"] for layer in layers],
            "neurons": [layer["name"] for layer in layers if layer["rows"]],
            "normalization": [e["name"] for e in self.manifest["normalization"]],
            "groups": list(range(len(self.manifest["optimizer"]["kinds"]))),
        }
        self.snapshots = Snapshots()
        self.findings: dict[tuple[str, str], Finding] = {}
        self._numel = np.array([layer["numel"] for layer in layers], float)
        self.tracks = Tracks(run, self.curves, self._numel)
        self._logged: Logged | None = None
        self._cursors = {name: run.cursor(name) for name in ("findings", "histograms")}
        self._damage: tuple[int, list[str]] = -1, []

    @property
    def layer_names(self) -> list[str]:
        """Watched parameters in the model's order."""
        return self.curves["layers"]

    @property
    def roll_ups(self) -> list[str]:
        """Modules and the whole model."""
        return roll_ups_of(self.layer_names)

    @property
    def numel(self) -> np.ndarray:
        """Elements of each layer, shape (layers,)."""
        return self._numel

    @property
    def scalars(self) -> set[str]:
        """Names of what was logged."""
        return self._logged.names if self._logged is not None else set()

    @property
    def damage(self) -> list[str]:
        """What of the run could not be read, with the reason."""
        with self.lock:
            if self._damage[0] != self.version:
                found = [*self.tracks.problems, *damage_in(self.run.folder)]
                for cursor in self._cursors.values():
                    found += cursor.problems.values()
                self._damage = self.version, list(dict.fromkeys(found))
            return self._damage[1]

    def refresh(self) -> bool:
        """Read what is new of what pages look at.

        Returns:
            Whether everything that was there has been read.
        """
        with self.lock:
            is_first = self._logged is None
            self._logged = self._logged or Logged(self.run)
            is_new = [is_first, not is_first and self._logged.poll()]
            is_new += [self.tracks.poll(), self._take_in()]
            if any(is_new):
                self.version += 1
        return True

    def held(
        self,
        table: str,
        name: Any,
        columns: Sequence[str],
        window: Steps | None = None,
    ) -> dict[str, Held]:
        """Columns of a curve; none if there is no such curve.

        Args:
            table: `layers`, `neurons`, `normalization`, `groups` or `scalars`.
            name: a layer or roll-up, the number of a group, what was logged.
            columns: columns of the table.
            window: which steps; None for all.
        """
        with self.lock:
            known = self.curves.get(table, self.scalars)
            is_rolled = table == "layers" and is_roll_up(name) and name in self.roll_ups
            if name not in known and not is_rolled:
                return {}
            names = self.curves[table] if table in TOGETHER else [name]
            tracks = self.tracks.get(table, names, columns, window)
            at = names.index(name)
            return {column: Held(track, column, at) for column, track in tracks.items()}

    def rotation(self, window: Steps | None = None) -> Rotation:
        """Means for the map of layers and steps."""
        with self.lock:
            return self.tracks.rotation(window)

    def _take_in(self) -> bool:
        """New findings and histograms; whether there were any."""
        rows = self._cursors["findings"].poll()
        for row in rows.to_pylist():
            finding = Finding.from_row(row)
            self.findings.setdefault((finding.rule, finding.layer), finding)
        is_new = len(rows) > 0
        while len(binned := self._binned()):
            self.snapshots.add(binned)
            is_new = True
        return is_new

    def _binned(self) -> pa.Table:
        return self._cursors["histograms"].poll(BINNED_ROWS)
