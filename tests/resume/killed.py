"""Moves rows into a branch, killed at every change on disk in turn: RUN STEP COPIES."""

import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from dynoscope.resume.branch import branch_off

CHANGES: Final = ("os.mkdir", "os.remove", "os.rename", "os.rmdir")


def die_at(change: int) -> None:
    """Let this process end, without a word, before its n-th change on disk."""
    left = itertools.count(change, -1)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = (
            event == "open"
            and isinstance(mode := arguments[1], str)
            and mode[0] in "wax"
        )
        if (event in CHANGES or writes) and next(left) == 0:
            os._exit(9)

    sys.addaudithook(hook)


def main(run: Path, step: int, copies: Path) -> None:
    for change in itertools.count():
        copy = shutil.copytree(run, copies / f"{change:03}")
        child = os.fork()
        if not child:
            die_at(change)
            branch_off(copy, step)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
