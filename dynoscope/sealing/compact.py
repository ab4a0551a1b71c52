"""`dynoscope compact`: seal all of a run that nobody writes any more."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dynoscope.errors import DynoscopeError
from dynoscope.reader import open_run
from dynoscope.reader.manifest import read_manifest
from dynoscope.recorder.manifest import Manifest
from dynoscope.schema import SCHEMA_VERSION, TABLES
from dynoscope.schema.folder import LEVELS
from dynoscope.sealing.plan import all_due
from dynoscope.sealing.segment import DamagedError, clear, write_segment
from dynoscope.sealing.sizes import Sizes

__all__ = ["Compacted", "compact"]


class Compacted(NamedTuple):
    """What became of a run's tables.

    Attributes:
        files: how many there were before, and are now.
        size: how many bytes they had before, and have now.
        problems: what cannot be read whole, and was left as it is.
    """

    files: tuple[int, int]
    size: tuple[int, int]
    problems: list[str]


def compact(run: Path, say: Callable[[str], None] | None = None) -> Compacted:
    """Merge the files of a run: finished, failed, or lost with its process.

    It may be stopped at any moment, and be called again.

    Args:
        run: the run's folder.
        say: is told, table by table, what is being done.

    Raises:
        RunNotFoundError: there is no readable run; the message says why.
        DynoscopeError: it is still being written.
        OSError: the disk is full, or fails in another way.
    """
    if open_run(run).status == "running":
        raise DynoscopeError(
            f"{run} is still being written; it seals itself as it goes, and the rest "
            "can be done when it has ended"
        )
    before, problems = _census(run), list[str]()
    _mark(run)
    for table in TABLES:
        folder = run / table
        if folder.is_dir():
            if say is not None:
                say(table)
            problems += _compact_table(folder)
            clear(folder)
    after = _census(run)
    return Compacted((before[0], after[0]), (before[1], after[1]), problems)


def _mark(run: Path) -> None:
    """Tell versions that know no segments that there may be some."""
    content = read_manifest(run)
    if content["schema_version"] < SCHEMA_VERSION:
        Manifest(run, content | {"schema_version": SCHEMA_VERSION}).write()


def _compact_table(folder: Path) -> list[str]:
    sizes, problems = Sizes(folder), []
    while groups := all_due(sizes.files()):
        try:
            write_segment(folder, groups[0])
        except FileNotFoundError:
            pass  # somebody else is at it: look again
        except DamagedError as error:
            sizes.leave(error.file)
            problems.append(str(error))
    return problems


def _census(run: Path) -> tuple[int, int]:
    """Number and bytes of the files of all tables."""
    folders = [*TABLES, LEVELS]
    paths = [path for folder in folders for path in (run / folder).glob("*")]
    return len(paths), sum(path.stat().st_size for path in paths)
