"""Whether a run may be recorded in a folder, and which one to take if none is named."""

import shutil
import time
from pathlib import Path

from dynoscope.errors import RunExistsError, RunNotFoundError, UnwatchableError
from dynoscope.reader import Run, open_run
from dynoscope.remote import Place
from dynoscope.schema import TABLES
from dynoscope.schema.folder import BRANCHES, MANIFEST

__all__ = ["existing", "fresh_folder", "prepared"]


def fresh_folder(model: str) -> Path:
    """A folder below `runs/` that is not there yet, by date and model.

    Raises:
        RunExistsError: too many of this second are there.
    """
    stem = f"{time.strftime('%Y-%m-%d_%H%M%S')}-{model}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = Path("runs") / f"{stem}{suffix}"
        if not folder.exists():
            return folder
    raise RunExistsError(f"no free name like {stem!r} is left in runs/; pass run=")


def existing(place: Path | str) -> Run | None:
    """The run in a folder or at a URI, if there is one."""
    try:
        return open_run(place)
    except RunNotFoundError:
        return None


def prepared(place: Place, *, resume: bool, overwrite: bool) -> Run | None:
    """Make a place ready to be recorded in.

    Args:
        place: where to.
        resume: go on with the run that is there.
        overwrite: replace it.

    Returns:
        The run to go on with, if one is resumed.

    Raises:
        RunExistsError: there is a run already, or something else.
        UnwatchableError: both are asked for.
    """
    folder = place.folder
    if resume and overwrite:
        raise UnwatchableError("resume=True and overwrite=True exclude each other")
    if not (folder / MANIFEST).exists():
        if folder.is_dir() and not any(folder.iterdir()):
            return None
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise RunExistsError(
                f"{place.run} exists and is not a dynoscope run; "
                "nothing in it was touched. Pass another run="
            ) from None
        except OSError as error:
            raise type(error)(
                error.errno,
                f"the run's folder cannot be made ({error.strerror}); pass another "
                "run=, or make way for it",
                str(folder),
            ) from None
        return None
    previous = Run(folder, place.run)
    if not (resume or overwrite):
        raise RunExistsError(
            f"{place.run} holds a run already ({previous.status}); pass resume=True to "
            "continue it, overwrite=True to replace it, or another run="
        )
    if previous.status == "running":
        raise RunExistsError(
            f"{place.run} is being written by another process right now"
        )
    if resume:
        return previous
    for part in (*TABLES, BRANCHES):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / MANIFEST).unlink()
    return None
