"""Which files of a run are mirrored, and in which order."""

import re
from collections.abc import Iterable
from typing import Final

from dynoscope.schema import TABLES
from dynoscope.schema.folder import (
    BRANCHES,
    CUT,
    FILE,
    LEVELS,
    LEVELS_FILE,
    MANIFEST,
    current_files,
)

__all__ = ["FILES", "about_branches", "in_order", "is_ours", "table_of"]

FILES: Final = ("*/*", f"{BRANCHES}/*/*", f"{BRANCHES}/*/*/*")
"""Where the files of a run are, its manifest aside: patterns to glob."""

_BRANCH: Final = rf"{BRANCHES}/\d+/"
_ABOUT_BRANCH: Final = re.compile(rf"{_BRANCH}({MANIFEST}|{CUT})")
_TABLE: Final = re.compile(
    rf"(?P<branch>{_BRANCH})?(?P<table>{'|'.join(TABLES)})"
    rf"/{FILE}"
)
_LEVELS: Final = re.compile(rf"(?P<branch>{_BRANCH})?{LEVELS}/{LEVELS_FILE}")


def is_ours(name: str) -> bool:
    """Whether a path below a run's folder is a file that dynoscope writes.

    >>> is_ours("layers/part-00000000.parquet"), is_ours("layers/notes.txt")
    (True, False)
    """
    patterns = (_TABLE, _LEVELS, _ABOUT_BRANCH)
    return name == MANIFEST or any(pattern.fullmatch(name) for pattern in patterns)


def table_of(name: str) -> str:
    """The run's table that a file belongs to, "" if to none."""
    found = _TABLE.fullmatch(name)
    if found is not None and not found["branch"]:
        return found["table"]
    found = _LEVELS.fullmatch(name)
    return found["of"] if found is not None and not found["branch"] else ""


def about_branches(names: Iterable[str]) -> list[str]:
    """The files that make a branch one: what is being cut, then the manifest."""
    return sorted(name for name in names if _ABOUT_BRANCH.fullmatch(name))


def in_order(names: Iterable[str]) -> list[str]:
    """The files that count, the manifest aside, in an order to copy them.

    A reader of what is copied so far sees every row once and none before an earlier
    one of its table: files of a table follow in the order of their rows, levels come
    before their segment. A branch appears when the rows that are in it have gone from
    the tables.
    """
    names = list(names)
    by_folder: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if found := _TABLE.fullmatch(name):
            of_run = found["branch"] or ""
            key = (of_run, f"{of_run}{found['table']}/")
            by_folder.setdefault(key, []).append(name.removeprefix(key[1]))
    there, ordered = set(names), []
    for (of_run, folder), files in sorted(by_folder.items()):
        for file in current_files(files):
            levels = f"{of_run}{LEVELS}/{file.levels(folder.split('/')[-2])}"
            if file.is_segment and levels in there:
                ordered.append(levels)
            ordered.append(folder + file.name)
    return ordered + about_branches(names)
