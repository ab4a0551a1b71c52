"""From a store down to a run folder: one file, as it is there."""

import os
from pathlib import Path

from dynoscope.remote.store import Listed, Store

__all__ = ["download", "is_same"]


def download(store: Store, name: str, listed: Listed, folder: Path) -> None:
    """Fetch a file; its copy bears the time at which the store's was written.

    Raises:
        FileNotFoundError: it is not there any more.
        StoreError: it cannot be read; the message says why.
    """
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    store.fetch(name, target)
    os.utime(target, ns=(listed.changed * 1000, listed.changed * 1000))


def is_same(path: Path, listed: Listed) -> bool:
    """Whether a file is the copy of what the store lists."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns // 1000) == listed
