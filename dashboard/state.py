"""What the dashboard knows of one run; a refresh reads only what is new."""

import threading
import time
from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from dynoscope.dashboard.history import History
from dynoscope.dashboard.rotation import Rotation
from dynoscope.dashboard.series import Series
from dynoscope.dashboard.snapshots import Snapshots
from dynoscope.findings import Finding
from dynoscope.reader import Block, Run, pivot
from dynoscope.reader.rollup import (
    is_roll_up,
    members_of,
    roll_up_columns,
    roll_ups_of,
)

__all__ = ["COST", "CUMULATIVE", "RunState"]

COST: Final = "dynoscope/hook_seconds"
"""The scalar that holds what the hooks cost the training thread."""

ROWS: Final = 1 << 17
"""Rows taken in at a time, so that a long run's first look needs little memory."""

BINNED_ROWS: Final = 1 << 11
"""The same of histograms, whose rows are long."""

ROLL_UPS: Final = 4
"""Roll-ups whose curves are kept."""

_HISTORIES: Final = {
    "groups": "group",
    "layers": "layer",
    "neurons": "layer",
    "normalization": "layer",
}
"""Tables of which curves are kept, and the column that tells curves apart."""

READ: Final = (*_HISTORIES, "scalars", "histograms", "findings")
"""Tables that are followed."""

CUMULATIVE: Final = ("revived", "revived_k1", "revived_k5")
"""Columns of `normalization` of which the sum so far is kept."""


class RunState:
    """Curves of one run, fed by cursors.

    Every method may be called from any thread; hold `lock` to make several calls
    that belong together.

    Args:
        run: the run.

    Attributes:
        run: the run.
        manifest: its manifest as it was when the state was made: what is watched
            does not change while a run is written.
        lock: guards everything.
        version: grows with every change.
        layers: the `layers` table.
        neurons: the `neurons` table, of layers that have output rows.
        normalization: the `normalization` table; revivals are counted up.
        groups: the `groups` table.
        rotation: means for the map of layers and steps.
        snapshots: histograms at a few steps, where they were asked for.
        scalars: what was logged, by name.
        findings: what rules found, by rule and layer, in the order of finding.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.manifest = run, run.manifest
        self.lock, self.version = threading.RLock(), 0
        names = [layer["name"] for layer in self.manifest["layers"]]
        rows = [layer["name"] for layer in self.manifest["layers"] if layer["rows"]]
        channels = [entry["name"] for entry in self.manifest["normalization"]]
        groups = list(range(len(self.manifest["optimizer"]["kinds"])))
        self.layers = History("layers", "layer", names, ["grad_l2", "angular_update"])
        self.neurons = History("neurons", "layer", rows, ["angular_update_p95"])
        self.normalization = History("normalization", "layer", channels, ["dead"])
        self.groups = History("groups", "group", groups, ["lr"])
        self.rotation = Rotation(len(names))
        self.snapshots = Snapshots()
        self.scalars: dict[str, Series] = {}
        self.cost = Cost()
        self.findings: dict[tuple[str, str], Finding] = {}
        self._numel = np.array([la["numel"] for la in self.manifest["layers"]], float)
        self._revived: dict[str, np.ndarray] = {}
        self._rolled: dict[str, _RollUp] = {}
        self._cursors = {name: run.cursor(name) for name in READ}

    @property
    def layer_names(self) -> list[str]:
        """Watched parameters in the model's order."""
        return self.layers.names

    @property
    def roll_ups(self) -> list[str]:
        """Modules and the whole model."""
        return roll_ups_of(self.layer_names)

    @property
    def damage(self) -> list[str]:
        """Files that could not be read, with the reason."""
        return [
            problem
            for cursor in self._cursors.values()
            for problem in cursor.problems.values()
        ]

    @property
    def numel(self) -> np.ndarray:
        """Elements of each layer, shape (layers,)."""
        return self._numel

    def refresh(self, seconds: float = 2.0) -> bool:
        """Read what is new, for about that long at most.

        Returns:
            Whether everything that was there has been read.
        """
        deadline = time.monotonic() + seconds
        while True:
            with self.lock:
                if not self._take_in():
                    return True
                self.version += 1
            if time.monotonic() > deadline:
                return False

    def columns_of(self, layer: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Steps and all columns of a layer or roll-up, each of shape (steps,).

        A layer has no row where its optimizer did not step in the round.
        """
        with self.lock:
            if not is_roll_up(layer):
                at = self.layer_names.index(layer)
                columns = {c: self.layers.column(c)[:, at] for c in self.layers.columns}
                is_there = ~np.isnan(columns["nonfinite"])
                if is_there.all():
                    return self.layers.steps, columns
                taken = {name: values[is_there] for name, values in columns.items()}
                return self.layers.steps[is_there], taken
            rolled = self._rolled.pop(layer, None) or _RollUp(self, layer)
            self._rolled[layer] = rolled  # the last one is the one used last
            if len(self._rolled) > ROLL_UPS:
                self._rolled.pop(next(iter(self._rolled)))
            return self.layers.steps, rolled.columns()

    def _take_in(self) -> bool:
        """One helping from every table; whether there was anything."""
        new = {
            name: cursor.poll(BINNED_ROWS if name == "histograms" else ROWS)
            for name, cursor in self._cursors.items()
        }
        for name, key in _HISTORIES.items():
            if len(new[name]):
                history: History = getattr(self, name)
                block = pivot(new[name], key, history.names)
                if name == "normalization":
                    block = self._counted_up(block)
                history.add(block)
                if name == "layers":
                    self.rotation.add(block)
        if len(new["histograms"]):
            self.snapshots.add(new["histograms"])
        if len(new["scalars"]):
            self._add_scalars(new["scalars"])
        for row in new["findings"].to_pylist():
            finding = Finding.from_row(row)
            self.findings.setdefault((finding.rule, finding.layer), finding)
        return any(len(table) for table in new.values())

    def _add_scalars(self, table: pa.Table) -> None:
        names, code = np.unique(
            table["name"].to_numpy().astype(str), return_inverse=True
        )
        order = np.argsort(code, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(code))[:-1])
        columns = {c: table[c].to_numpy() for c in ("step", "wall_time", "value")}
        for name, rows in zip(names.tolist(), parts, strict=True):
            steps, values = columns["step"][rows], columns["value"][rows]
            self.scalars.setdefault(name, Series()).add(steps, values)
            if name == COST:
                self.cost.add(columns["wall_time"][rows], values)

    def _counted_up(self, block: Block) -> Block:
        """Revivals so far, in place of those of each step."""
        counted = dict(block)
        for name in CUMULATIVE:
            # A layer has no row where its optimizer did not step in the round.
            new = np.nan_to_num(block[name])
            total = self._revived.get(name, 0) + np.cumsum(new, axis=0)
            counted[name] = np.where(np.isnan(block[name]), np.nan, total)
            self._revived[name] = total[-1]
        return counted


class Cost:
    """What the hooks cost the training thread, over the run so far."""

    def __init__(self) -> None:
        self._seconds, self._steps = 0.0, 0
        self._began, self._ended = np.inf, -np.inf

    def add(self, wall_time: np.ndarray, seconds: np.ndarray) -> None:
        """Add measured steps: when each ended, and what it cost."""
        self._seconds += float(seconds.sum())
        self._steps += len(seconds)
        self._began = min(self._began, float(wall_time.min()))
        self._ended = max(self._ended, float(wall_time.max()))

    @property
    def per_step(self) -> float | None:
        """Mean seconds per measured step; None before the first one."""
        return self._seconds / self._steps if self._steps else None

    @property
    def share(self) -> float | None:
        """Share of the time from the first measured step to the last one."""
        elapsed = self._ended - self._began
        return self._seconds / elapsed if elapsed > 0 else None


class _RollUp:
    """Columns of a roll-up, worked out for new rows only."""

    def __init__(self, state: RunState, name: str) -> None:
        self._state, self._thinned = state, -1
        members = members_of(name, state.layer_names)
        self._at = [state.layer_names.index(member) for member in members]
        self._done: dict[str, np.ndarray] = {}
        self._rows = 0

    def columns(self) -> dict[str, np.ndarray]:
        history = self._state.layers
        if history.thinned != self._thinned:
            self._done, self._rows, self._thinned = {}, 0, history.thinned
        if self._rows == len(history) and self._done:
            return self._done
        arrays = {
            name: history.column(name)[self._rows :][:, self._at].astype(float)
            for name in history.columns
        }
        numel = self._state.numel[self._at]
        arrays["numel"] = np.broadcast_to(numel, arrays["weight_norm"].shape)
        new = roll_up_columns(arrays)
        self._done = {
            name: np.concatenate([self._done[name], column]) if self._done else column
            for name, column in new.items()
        }
        self._rows = len(history)
        return self._done
