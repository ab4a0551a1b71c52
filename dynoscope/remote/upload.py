"""From a run folder up to a store: what is new, in an order that readers can trust."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from dynoscope.errors import RunNotFoundError
from dynoscope.remote.layout import FILES, in_order, is_ours
from dynoscope.remote.store import Store
from dynoscope.schema.folder import MANIFEST
from dynoscope.schema.manifest import manifest_text

__all__ = ["Upload", "local_manifest"]


class Stamp(NamedTuple):
    """What tells two states of a file apart: its size, and when it changed, in ns."""

    size: int
    changed: int


class Upload:
    """Brings a store to what a run folder holds, which may be written meanwhile.

    A part goes up once, a journal as it is whenever it has grown. Within a table,
    files go up in the order of their rows, and a journal is removed only after the
    part that replaces it has come. The manifest is read before all and goes last: what
    it says of the tables is there by then.

    Args:
        folder: the run's folder.
        store: where it goes.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self._folder, self._store = folder, store
        self._sent: dict[str, Stamp] = {}
        self._there: set[str] = set()
        self._strays: set[str] = set()
        self._manifest = b""

    def look(self, *, replace: bool) -> None:
        """See what is there already; files that were fetched from there are.

        Args:
            replace: whether what is there and not in the folder is to go. Later on, a
                file that somebody removes from the folder stays where it went.
        """
        listed = self._store.list()
        found = self._found()
        for name, stamp in found.items():
            if listed.get(name) == (stamp.size, stamp.changed // 1000):
                self._sent[name] = stamp
        self._there = {name for name in listed if is_ours(name)} - {MANIFEST}
        self._strays = self._there - found.keys() if replace else set()

    def once(self) -> None:
        """Send all that is new.

        Raises:
            StoreError: not everything arrived; the next call goes on.
            RunNotFoundError: the folder holds no run any more.
        """
        manifest = self._read_manifest()
        self._delete(self._strays)
        while not self._send_tables():
            pass  # a journal has just become a part, which has its rows
        self._delete(self._there - set(in_order(self._there)))
        if manifest != self._manifest:
            self._store.put(MANIFEST, manifest)
            self._manifest = manifest

    def backlog(self) -> int:
        """Bytes that are not there yet, of the tables above all."""
        found = self._found().items()
        return sum(s.size for name, s in found if self._sent.get(name) != s)

    def _send_tables(self) -> bool:
        """Send files that are new; False if one was gone when its turn came."""
        for name, stamp in self._found().items():
            if self._sent.get(name) == stamp:
                continue
            try:
                self._store.put(name, self._folder / name)
            except FileNotFoundError:
                return False
            self._sent[name] = stamp
            self._there.add(name)
        return True

    def _delete(self, names: set[str]) -> None:
        for name in sorted(names):
            self._store.delete(name)
            self._there.discard(name)
            self._strays.discard(name)

    def _found(self) -> dict[str, Stamp]:
        """The files that count, the manifest aside, in the order of going up."""
        while True:
            paths = (path for each in FILES for path in self._folder.glob(each))
            names = (path.relative_to(self._folder).as_posix() for path in paths)
            try:
                return {name: _stamp(self._folder / name) for name in in_order(names)}
            except FileNotFoundError:
                continue  # a journal has just become a part

    def _read_manifest(self) -> bytes:
        """The manifest as it is to be read there, where nothing is missing any more."""
        content = local_manifest(self._folder)
        if "upload" in content:
            content["upload"]["backlog"] = 0
        return manifest_text(content).encode()


def local_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        RunNotFoundError: there is none that can be read.
    """
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        content["created"], content["status"], content["heartbeat"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunNotFoundError(
            f"{folder} holds no run: its {MANIFEST} cannot be read"
        ) from None
    return content


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns)
