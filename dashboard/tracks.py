"""The curves that pages look at, read when they are first asked for."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from dynoscope.dashboard.rotation import Rotation
from dynoscope.dashboard.track import POINTS, Made, Steps, Track
from dynoscope.measurement import FloatArray
from dynoscope.metrics.buckets import Buckets
from dynoscope.reader import Run
from dynoscope.reader.rollup import (
    is_roll_up,
    members_of,
    needed_for,
    roll_up_columns,
)
from dynoscope.reader.turns import as_of_last_turns, reach_of, turns_of

__all__ = ["Held", "Tracks"]

KEPT: Final = 96
"""Tracks that are held, most; those that were looked at last."""

PATIENCE: Final = 20
"""Changes of a run after which a track that nobody looks at is let go."""

ROLLED_COLUMNS: Final = 8
"""Columns of all layers that are read at once, to be rolled up."""

ROLLED_ROWS: Final = 1 << 21
"""Rows that are rolled up one by one; where there are more, means are."""


class Held(NamedTuple):
    """A curve of a track.

    Attributes:
        track: the track.
        column: which of its columns.
        at: which of its curves.
    """

    track: Track
    column: str
    at: int = 0

    @property
    def steps(self) -> np.ndarray:
        """First step of each bucket, shape (buckets,)."""
        return self.track.steps

    @property
    def buckets(self) -> Buckets:
        """Smallest value, mean and largest value of each, shape (buckets,)."""
        return self.all_buckets.at((slice(None), self.at))

    @property
    def all_buckets(self) -> Buckets:
        """Those of all curves of the track, shape (buckets, curves)."""
        return self.track.buckets(self.column)

    @property
    def last(self) -> float:
        """The newest number as it was measured; NaN if there is none."""
        return float(self.track.last(self.column)[self.at])


class _Kept(NamedTuple):
    """What is held under a key, and when it was looked at last."""

    tracks: list[Track]
    seen: int


_Key = tuple[str, tuple[Any, ...], Steps | None]


class Tracks:
    """Tracks of one run; the caller sees to it that one thread is at work.

    Args:
        run: the run.
        curves: for each table, all of its curves.
        numel: elements of each layer, in the order of the layers, shape (layers,).
    """

    def __init__(
        self, run: Run, curves: Mapping[str, Sequence[Any]], numel: FloatArray
    ) -> None:
        self._run, self._curves, self._numel = run, curves, numel
        self._kept: dict[_Key, _Kept] = {}
        self._rotations: dict[Steps | None, Rotation] = {}
        self._changes = 0

    def __iter__(self) -> Iterator[Track]:
        """All that are held."""
        return iter([track for kept in self._kept.values() for track in kept.tracks])

    def get(
        self,
        table: str,
        names: Sequence[Any],
        columns: Sequence[str],
        window: Steps | None = None,
    ) -> dict[str, Track]:
        """Tracks of some columns, read in as little as one go if they are new.

        Args:
            table: the table.
            names: its curves: some, which are kept together; or one roll-up.
            columns: the columns.
            window: which steps; None for all.

        Returns:
            For each column, the track that has it.
        """
        key = table, tuple(names), window
        tracks = self._kept[key].tracks if key in self._kept else []
        there = {column for track in tracks for column in track.columns}
        missing = [column for column in dict.fromkeys(columns) if column not in there]
        if missing:
            tracks = [*tracks, *self._made(table, names, missing, window)]
        self._keep(key, tracks)
        return {c: next(t for t in tracks if c in t.columns) for c in columns}

    def rotation(self, window: Steps | None = None) -> Rotation:
        """Means for the map of layers and steps."""
        key = "layers", (Rotation,), window
        if key not in self._kept:
            self._rotations[window] = Rotation(self._run, window=window)
        rotation = self._rotations[window]
        self._keep(key, [rotation.track])
        return rotation

    def poll(self) -> bool:
        """Take in what is new of what is looked at; whether there was anything."""
        stale = [
            key
            for key, kept in self._kept.items()
            if kept.seen < self._changes - PATIENCE
        ]
        for key in stale:
            self._forget(key)
        is_new = [track.poll() for track in self]
        self._changes += any(is_new)
        return any(is_new)

    @property
    def problems(self) -> list[str]:
        """What could not be read."""
        return [problem for track in self for problem in track.problems]

    def _keep(self, key: _Key, tracks: list[Track]) -> None:
        self._kept.pop(key, None)
        self._kept[key] = _Kept(tracks, self._changes)  # last: used last
        while sum(len(kept.tracks) for kept in self._kept.values()) > KEPT:
            oldest = next(iter(self._kept))
            if oldest == key:
                break
            self._forget(oldest)

    def _forget(self, key: _Key) -> None:
        del self._kept[key]
        if key[1] == (Rotation,):
            with contextlib.suppress(KeyError):
                del self._rotations[key[2]]

    def _made(
        self,
        table: str,
        names: Sequence[Any],
        columns: Sequence[str],
        window: Steps | None,
    ) -> list[Track]:
        among = len(self._curves.get(table, [0]))
        if table != "layers" or not is_roll_up(names[0]):
            one = Track(self._run, table, columns, names, among=among, window=window)
            return [one]
        members = members_of(names[0], self._curves["layers"])
        return [
            Track(
                self._run,
                table,
                needed_for(group),
                members,
                among=among,
                window=window,
                made=self._roller(members, group),
                exact=min(ROLLED_ROWS // max(len(members), 1), POINTS),
                reach=reach_of(turns_of(self._run.manifest, members)),
            )
            for group in _grouped(columns)
        ]

    def _roller(self, members: Sequence[str], columns: Sequence[str]) -> Made:
        layers = self._curves["layers"]
        numel = self._numel[[layers.index(name) for name in members]]
        turns = turns_of(self._run.manifest, members)

        def rolled(arrays: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
            wide = np.broadcast_to(numel, arrays["nonfinite"].shape)
            arrays = as_of_last_turns(turns, arrays)
            with np.errstate(all="ignore"):  # infinite norms are measured, too
                found = roll_up_columns({**arrays, "numel": wide}, columns)
            return {name: values[:, None] for name, values in found.items()}

        return rolled


def _grouped(columns: Iterable[str]) -> list[list[str]]:
    """Columns of a roll-up whose layers' columns are few enough to be read at once."""
    groups: list[list[str]] = []
    for column in columns:
        if groups and len(needed_for([*groups[-1], column])) <= ROLLED_COLUMNS:
            groups[-1].append(column)
        else:
            groups.append([column])
    return groups
