"""Find the runs below a folder."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from dynoscope.errors import DynoscopeWarning, RunNotFoundError
from dynoscope.reader.run import Run, open_run
from dynoscope.schema.folder import MANIFEST

__all__ = ["find_runs", "run_folders"]


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


def find_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """All runs in a folder and its subfolders, the folder itself included.

    Warns:
        DynoscopeWarning: names each run that cannot be read, and is left out.
    """
    runs = []
    for path in run_folders(Path(folder)):
        try:
            runs.append(open_run(path))
        except RunNotFoundError as error:
            warnings.warn(str(error), DynoscopeWarning, stacklevel=2)
    return runs
