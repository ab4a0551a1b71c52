"""The runs below a URI, looked for again and again."""

import contextlib
import itertools
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dynoscope.errors import StoreError
from dynoscope.remote.replica import INTERVAL, Replica
from dynoscope.remote.store import Listed, Store
from dynoscope.schema.folder import MANIFEST

__all__ = ["Catalog", "runs_below"]

SHARE: Final = 0.2
"""Share of the time that may be spent listing: what takes long is done less often."""

AT_ONCE: Final = 8
"""Manifests that are fetched at the same time."""


class Catalog:
    """Finds the runs below a URI, by one listing of it at a time.

    Args:
        uri: a run, or what is around runs; nothing need be there yet.

    Attributes:
        uri: the same, without its password.

    Raises:
        StoreError: it cannot be read; the message says why.
    """

    def __init__(self, uri: str) -> None:
        self._store = Store(uri)
        self.uri = self._store.uri
        self._replicas: dict[str, Replica] = {}
        self._known: dict[str, Listed] = {}
        self._due = 0.0
        self._look()

    def look(self) -> dict[str, Replica]:
        """Runs by their path below the URI, "" if it is one; manifests up to date."""
        # If the store cannot be read, each run says so when it is asked.
        with contextlib.suppress(StoreError):
            self._look()
        return self._replicas

    def _look(self) -> None:
        began = time.monotonic()
        if began < self._due:
            return
        self._due = began + INTERVAL
        listed = self._store.list()
        ended = time.monotonic()
        self._due = ended + max(INTERVAL, (ended - began) / SHARE)
        manifests = _outermost(listed)
        self._replicas = {key: self._replica(key) for key in manifests}
        news = [key for key in manifests if self._known.get(key) != manifests[key]]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            read = pool.map(self._read, news)
            done = [key for key, is_read in zip(news, read, strict=True) if is_read]
        self._known |= {key: manifests[key] for key in done}

    def _replica(self, key: str) -> Replica:
        known = self._replicas.get(key)
        return known or Replica(self._store.below(key) if key else self._store)

    def _read(self, key: str) -> bool:
        replica = self._replicas[key]
        try:
            replica.manifest()
        except StoreError:
            return False  # whoever opens this run is told
        return not replica.problem


def _outermost(listed: Mapping[str, Listed]) -> dict[str, Listed]:
    """What is listed of manifests, by the path of their runs; a run holds no other."""
    found: dict[str, Listed] = {}
    for name in sorted(listed, key=lambda name: name.count("/")):
        key, _, file = name.rpartition("/")
        above = ["", *itertools.accumulate(key.split("/"), "{}/{}".format)][:-1]
        if file == MANIFEST and not any(run in found for run in above if run != key):
            found[key] = listed[name]
    return dict(sorted(found.items()))


def runs_below(uri: str) -> dict[str, int]:
    """Runs below a URI by their path there, "" if it is one: bytes, as it is listed.

    Raises:
        StoreError: it cannot be read; the message says why.
    """
    listed = Store(uri).list()
    sizes = dict.fromkeys(_outermost(listed), 0)
    for name, object_ in listed.items():
        for above in ["", *itertools.accumulate(name.split("/"), "{}/{}".format)]:
            if above in sizes:
                sizes[above] += object_.size
    return sizes
