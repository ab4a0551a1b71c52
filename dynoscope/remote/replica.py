"""A copy of a remote run on this machine, brought up to date as it is read."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from filelock import FileLock

from dynoscope.errors import StoreError
from dynoscope.remote.download import download, is_same
from dynoscope.remote.layout import about_branches, in_order, table_of
from dynoscope.remote.places import cache_of
from dynoscope.remote.store import Listed, Store
from dynoscope.schema.folder import BRANCHES, LEVELS, MANIFEST, TEMPORARY

__all__ = ["Replica"]

INTERVAL: Final = 2.0
"""Seconds for which a look at the store is good enough."""

LONGEST_PAUSE: Final = 60.0
"""Most seconds between looks at a store that cannot be read."""

RETRIES: Final = 5


class Replica:
    """The copy of a run, of which any process of this user may have another hold.

    It has the tables that were asked for. While the store cannot be read, the copy
    stays as it is, and `problem` says so.

    Args:
        store: the run's objects.

    Attributes:
        uri: the run's URI, without its password.
        folder: the copy, a run folder.
        problem: why the copy may be out of date, "" if nothing is wrong.
        looked: when the store was last seen, seconds since 1970; 0 if never.
    """

    def __init__(self, store: Store) -> None:
        self._store, self.uri = store, store.uri
        self.folder = cache_of(self.uri)
        self.problem, self.looked = "", 0.0
        # It keeps threads of this process apart, too.
        self._lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"))
        self._tables: set[str] = set()
        self._stamp: tuple[int, int] | None = None  # of the manifest, at the last look
        self._failures = 0
        self._manifest_due = self._tables_due = 0.0

    def below(self, name: str) -> "Replica":
        """The copy of a branch."""
        return Replica(self._store.below(name))

    def manifest(self) -> None:
        """Bring the manifest up to date.

        Raises:
            StoreError: the store cannot be read, and never could by this object.
        """
        with self._held():
            if time.monotonic() >= self._manifest_due:
                self._look(lambda: self._publish(self._read_manifest()))

    def table(self, name: str) -> None:
        """Bring a table up to date; see `manifest`."""
        with self._held():
            # A manifest that came after the tables may tell of rows that did not.
            is_whole = name in self._tables and self._stamp == self._manifest_stamp()
            is_recent = time.monotonic() < self._tables_due
            if not (is_recent and (is_whole or self.problem)):
                self._tables.add(name)
                self._look(self._bring_tables)

    def _held(self) -> FileLock:
        # The user may have cleared the cache.
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._lock

    def _look(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreError as error:
            if not self.looked:
                raise
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.looked))
            self.problem = f"This is how it was at {when}: {error}"
            self._failures += 1
            pause = min(INTERVAL * 2.0**self._failures, LONGEST_PAUSE)
            self._manifest_due = self._tables_due = time.monotonic() + pause
        else:
            self.problem, self._failures, self.looked = "", 0, time.time()
            self._manifest_due = time.monotonic() + INTERVAL

    def _bring_tables(self) -> None:
        for _ in range(RETRIES):
            # In this order: what the manifest tells of is listed.
            manifest, listed = self._read_manifest(), self._store.list()
            try:
                for table in sorted(self._tables):
                    names = [n for n in in_order(listed) if table_of(n) == table]
                    patterns = [f"{table}/*", f"{LEVELS}/{table}-*"]
                    self._bring(patterns, names, listed)
                # Last: by now the tables lack what has moved into a branch.
                about = about_branches(listed)
                self._bring([f"{BRANCHES}/*/*.json"], about, listed)
            except FileNotFoundError:
                continue  # a journal has just become a part
            self._publish(manifest)
            self._stamp = self._manifest_stamp()
            self._tables_due = time.monotonic() + INTERVAL
            return
        raise StoreError(f"{self.uri}: its files keep vanishing; is it being replaced?")

    def _bring(
        self,
        patterns: Sequence[str],
        names: Sequence[str],
        listed: Mapping[str, Listed],
    ) -> None:
        """Fetch what is new, in this order; then remove what is gone."""
        for name in names:
            if not is_same(self.folder / name, listed[name]):
                download(self._store, name, listed[name], self.folder)
        for path in [path for each in patterns for path in self.folder.glob(each)]:
            if path.relative_to(self.folder).as_posix() not in names:
                path.unlink()
                with contextlib.suppress(OSError):  # there are other files in it
                    path.parent.rmdir()

    def _read_manifest(self) -> bytes | None:
        try:
            return self._store.get(MANIFEST)
        except FileNotFoundError:
            return None

    def _publish(self, manifest: bytes | None) -> None:
        path = self.folder / MANIFEST
        path.parent.mkdir(parents=True, exist_ok=True)
        if manifest is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != manifest:
            temporary = path.with_name(path.name + TEMPORARY)
            temporary.write_bytes(manifest)
            temporary.replace(path)

    def _manifest_stamp(self) -> tuple[int, int] | None:
        try:
            status = (self.folder / MANIFEST).stat()
        except FileNotFoundError:
            return None
        return status.st_mtime_ns, status.st_size
