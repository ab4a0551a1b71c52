"""Find the runs below a folder or a URI."""

import os
import warnings

from dynoscope.errors import DynoscopeWarning, RunNotFoundError, StoreError
from dynoscope.reader.run import Run
from dynoscope.reader.shelf import shelf

__all__ = ["find_runs"]


def find_runs(place: str | os.PathLike[str]) -> list[Run]:
    """All runs in a folder and its subfolders, itself included, or below a URI.

    Raises:
        StoreError: what is at a URI cannot be read; the message says why.

    Warns:
        DynoscopeWarning: names each run that cannot be read, and is left out.
    """
    runs, found = [], shelf(place)
    for _, folder in found.folders():
        try:
            runs.append(found.open(folder))
        except (RunNotFoundError, StoreError) as error:
            warnings.warn(str(error), DynoscopeWarning, stacklevel=2)
    return runs
