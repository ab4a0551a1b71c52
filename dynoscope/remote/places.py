"""Folders of this machine: where runs wait to be sent, and where copies are kept."""

import getpass
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

__all__ = ["cache_of", "name_of", "new_spool", "remove_spool", "spools_of"]

PRIVATE: Final = 0o700
"""Mode of our folders: a run may hold what is nobody else's business."""


def name_of(uri: str) -> str:
    """Name of what a URI leads to.

    >>> name_of("s3://bucket/runs/lion?scheme=http")
    'lion'
    """
    parts = urlsplit(uri)
    last = unquote(parts.path).rstrip("/").rpartition("/")[2] or parts.netloc
    return "run" if last in ("", ".", "..") else last


def cache_of(uri: str) -> Path:
    """The folder that holds a copy of a run, which may be removed at any time."""
    return _made(_base("runs", uri) / name_of(uri))


def new_spool(uri: str) -> Path:
    """A fresh, empty folder to record a run in; nobody else has it."""
    below = _made(_base("spool", uri))
    while True:
        unique = below / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09}"
        try:
            unique.mkdir(mode=PRIVATE)
        except FileExistsError:
            continue  # somebody else in the same nanosecond
        return _made(unique / name_of(uri))


def spools_of(uri: str) -> list[Path]:
    """Folders in which runs to this URI were recorded and that are still here."""
    return sorted(_base("spool", uri).glob(f"*/{name_of(uri)}"))


def remove_spool(folder: Path) -> None:
    """Remove a spool that has arrived; any other folder is left alone."""
    unique = folder.resolve().parent
    if unique.parent.parent == (_root() / "spool").resolve():
        shutil.rmtree(unique, ignore_errors=True)


def _base(kind: str, uri: str) -> Path:
    key = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return _root() / kind / key


def _root() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    root = (Path(given) if given else Path.home() / ".cache") / "dynoscope"
    try:
        return _made(root)
    except OSError:
        # No home, or one that is read-only, as in some containers.
        user = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
        return _made(Path(tempfile.gettempdir()) / f"dynoscope-{user}")


def _made(folder: Path) -> Path:
    folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    return folder
