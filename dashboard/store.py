"""All runs below a folder, shared by every open page."""

import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dynoscope.dashboard.state import RunState
from dynoscope.errors import RunNotFoundError, StoreError
from dynoscope.reader import Run, shelf
from dynoscope.reader.standing import standing_of
from dynoscope.schema.folder import MANIFEST

__all__ = ["Entry", "Store"]

PAUSE: Final = 0.5
"""Seconds in which a second page is answered with what the first one read."""

LOADED: Final = 12
"""Runs whose curves are kept in memory."""


_UNREADABLE: Final = (
    RunNotFoundError,
    StoreError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What comes of a run that was removed, or is none of ours."""


@dataclasses.dataclass
class Entry:
    """One run, as the list of runs shows it.

    Attributes:
        key: its name: the path below the folder or URI that is served.
        run: the run, None if its manifest cannot be read.
        row: cells of the list.
        stamp: when its manifest was last written, in ns.
        identity: changes when what was read of the run before is stale.
    """

    key: str
    run: Run | None
    row: dict[str, Any]
    stamp: int
    identity: tuple[float, int] = (0.0, 0)


class Store:
    """Finds runs, follows their status, and keeps the curves of those looked at.

    Args:
        place: a run, or a folder of runs, or the URI of either; need not exist yet.

    Attributes:
        place: that folder or URI.
        version: changes whenever the list of runs does.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._shelf = shelf(place)
        self.place = self._shelf.place
        self._boot = uuid.uuid4().hex[:8]  # pages outlive a server
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._states: dict[str, RunState] = {}
        self._finished: dict[str, int] = {}  # stamp at which all had been read
        self._scanned = -PAUSE
        self._refreshed: dict[str, float] = {}
        self._changes = 0

    @property
    def version(self) -> str:
        """Changes whenever the list of runs does."""
        return f"{self._boot}-{self._changes}"

    def scan(self) -> None:
        """Look for new runs and new statuses; cheap where nothing is new."""
        with self._lock:
            if time.monotonic() - self._scanned < PAUSE:
                return
            before = {key: entry.row for key, entry in self._entries.items()}
            found = {key: self._look(key, path) for key, path in self._shelf.folders()}
            self._entries = {key: entry for key, entry in found.items() if entry}
            after = {key: entry.row for key, entry in self._entries.items()}
            self._changes += before != after
            self._scanned = time.monotonic()

    def rows(self) -> list[dict[str, Any]]:
        """The list of runs, the one heard of last first."""
        rows = [entry.row for entry in self._entries.values()]
        return sorted(rows, key=lambda row: -row["created"])

    def newest(self) -> str | None:
        """The run to show first: the youngest that is running, or of all."""
        rows = self.rows()
        running = [row for row in rows if row["status"] == "running"]
        return next((row["id"] for row in [*running, *rows]), None)

    def entry(self, key: str) -> Entry | None:
        """A run of the list."""
        return self._entries.get(key)

    def states(self, keys: Sequence[str]) -> dict[str, RunState]:
        """Curves of these runs as they were last read, by key."""
        with self._lock:
            return {key: s for key in keys if (s := self._state(key)) is not None}

    def refresh(self, keys: Sequence[str]) -> str:
        """Read what is new in these runs.

        Returns:
            A text that changes whenever any of their curves does.
        """
        versions = []
        for key, state in self.states(keys).items():
            entry = self._entries.get(key)
            if entry is not None and self._is_due(key, entry):
                is_all = state.refresh()
                over = entry.row["status"] != "running"
                if is_all and over:
                    self._finished[key] = entry.stamp
            versions.append(f"{key}:{state.version}:{id(state)}")
            if entry is not None:
                versions.append(f"{entry.stamp}{entry.row['status']}")
        return "|".join([self._boot, *versions])

    def is_live(self, keys: Sequence[str]) -> bool:
        """Whether any of these runs is running or not yet read to its end."""
        return any(
            entry.row["status"] == "running" or self._finished.get(key) != entry.stamp
            for key in keys
            if (entry := self._entries.get(key)) is not None and entry.run is not None
        )

    def _is_due(self, key: str, entry: Entry) -> bool:
        # A run that is over, and was read after it was, has nothing more to give.
        if self._finished.get(key) == entry.stamp:
            return False
        with self._lock:
            if time.monotonic() - self._refreshed.get(key, -PAUSE) < PAUSE:
                return False
            self._refreshed[key] = time.monotonic()
            return True

    def _state(self, key: str) -> RunState | None:
        entry = self._entries.get(key)
        if entry is None or entry.run is None:
            return None
        state = self._states.pop(key, None)
        if state is None or _identity(state.manifest) != entry.identity:
            try:
                # unknown, replaced by another run, or of other layers than before
                state = RunState(entry.run)
            except _UNREADABLE:
                return None  # it has just been removed, or is no run of ours
            self._finished.pop(key, None)
        self._states[key] = state
        while len(self._states) > LOADED:
            forgotten = next(iter(self._states))
            del self._states[forgotten]
            self._finished.pop(forgotten, None)
        return state

    def _look(self, key: str, path: Path) -> Entry | None:
        try:
            stamp = (path / MANIFEST).stat().st_mtime_ns
        except OSError:
            return None
        known = self._entries.get(key)
        if known is not None and known.stamp == stamp:
            if known.run is None or known.row["status"] != "running":
                return known
            # The manifest may say so for ever: its process may be gone.
        try:
            run = known.run if known and known.run else self._shelf.open(path)
            row, identity = _row(key, run), _identity(run.manifest)
            return Entry(key, run, row, stamp, identity)
        except _UNREADABLE as error:
            return Entry(key, None, _unreadable(key, error, stamp), stamp)


def _row(key: str, run: Run) -> dict[str, Any]:
    standing = standing_of(run)
    return {
        "id": key,
        "status": standing.status,
        "note": standing.exception,
        "problems": list(standing.problems),
        "model": standing.model,
        "optimizer": standing.optimizer,
        "step": standing.step,
        "updated": standing.updated,
        "created": standing.created,
    }


def _unreadable(key: str, error: Exception, stamp: int) -> dict[str, Any]:
    known = isinstance(error, RunNotFoundError | StoreError)
    why = str(error) if known else f"{MANIFEST} lacks {error}"
    return {
        "id": key,
        "status": "unreadable",
        "note": why,
        "problems": [],
        "model": "",
        "optimizer": "",
        "step": None,
        "updated": stamp / 1e9,
        "created": stamp / 1e9,
    }


def _identity(manifest: Any) -> tuple[float, int]:
    return float(manifest["created"]), int(manifest.get("revision", 0))
