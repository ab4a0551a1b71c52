"""Where there are runs: a folder and those below it, or a URI."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from dynoscope.reader.run import Run
from dynoscope.remote import Catalog, is_uri
from dynoscope.schema.folder import MANIFEST

__all__ = ["Shelf", "run_folders", "shelf"]


class Shelf(Protocol):
    """A place that has runs in it, or will have.

    Attributes:
        place: the folder or the URI.
    """

    @property
    def place(self) -> Path | str:
        """The folder or the URI."""

    def folders(self) -> Iterator[tuple[str, Path]]:
        """Runs that are there now: what to call each, and the folder to read."""

    def open(self, folder: Path) -> Run:
        """One of them, by its folder.

        Raises:
            RunNotFoundError: it cannot be read; the message says why.
            StoreError: it cannot be fetched; the message says why.
        """


class _Folder:
    def __init__(self, place: Path) -> None:
        self.place = place

    def folders(self) -> Iterator[tuple[str, Path]]:
        for path in run_folders(self.place):
            below = path.relative_to(self.place).as_posix()
            yield (self.place.resolve().name if below == "." else below), path

    def open(self, folder: Path) -> Run:
        return Run(folder)


class _Store:
    def __init__(self, uri: str) -> None:
        self._catalog = Catalog(uri)
        self.place = self._catalog.uri

    def folders(self) -> Iterator[tuple[str, Path]]:
        for key, replica in self._catalog.look().items():
            yield key or replica.folder.name, replica.folder

    def open(self, folder: Path) -> Run:
        replicas = self._catalog.look().values()
        return Run(next(each for each in replicas if each.folder == folder))


def shelf(place: str | os.PathLike[str]) -> Shelf:
    """The runs in a folder or below a URI; it need not exist yet.

    Raises:
        StoreError: what is at the URI cannot be read; the message says why.
    """
    return _Store(str(place)) if is_uri(place) else _Folder(Path(place))


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders with a manifest, sorted; those inside a run are not looked into."""
    if (folder / MANIFEST).exists():
        yield folder
        return
    # A folder may vanish, or be closed to us, while we look.
    with contextlib.suppress(OSError), os.scandir(folder) as children:
        below = sorted(
            child.name
            for child in children
            if child.is_dir() and not child.name.startswith(".")
        )
        for name in below:
            yield from run_folders(folder / name)
