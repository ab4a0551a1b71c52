"""The layout of a run folder: which file is which, and which one counts.

    run.json                          the manifest, always replaced atomically
    layers/journal-00000003.arrow     rows as they come, an Arrow IPC stream
    layers/part-00000002.parquet      the rows of journal 2, once it was full
    branches/001/                     rows that a resumed training superseded, a run

A table's files are numbered. Part n holds all rows of journal n and counts from
the moment it bears its name; journal n is removed after that, and ignored while
it still lies beside its part. So at any instant, after any crash, every row is
read once.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

__all__ = [
    "BRANCHES",
    "CUT",
    "MANIFEST",
    "SCHEMA_VERSION",
    "TEMPORARY",
    "TableFile",
    "branch_name",
    "branch_names",
    "current_files",
    "journal_name",
    "part_name",
]

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "run.json"
TEMPORARY: Final = ".tmp"
"""Suffix of a file that is being written; readers pass it over."""
BRANCHES: Final = "branches"
"""Folder of a run that holds its branches."""
CUT: Final = "cut.json"
"""File of a branch whose rows are still being taken out of the tables."""

_PATTERN = re.compile(r"(journal|part)-(\d{8})\.(arrow|parquet)")


class TableFile(NamedTuple):
    """One file of a table."""

    number: int
    is_part: bool
    name: str


def part_name(number: int) -> str:
    """File name of a Parquet part."""
    return f"part-{number:08}.parquet"


def journal_name(number: int) -> str:
    """File name of a journal."""
    return f"journal-{number:08}.arrow"


def current_files(names: Iterable[str]) -> list[TableFile]:
    """The files of a table that count, in the order of their rows.

    >>> current_files(["part-00000000.parquet", "journal-00000000.arrow"])
    [TableFile(number=0, is_part=True, name='part-00000000.parquet')]
    """
    by_number: dict[int, TableFile] = {}
    for name in sorted(names):  # journals sort before parts, which replace them
        if match := _PATTERN.fullmatch(name):
            number = int(match[2])
            by_number[number] = TableFile(number, match[1] == "part", name)
    return [by_number[number] for number in sorted(by_number)]


def branch_name(number: int) -> str:
    """Folder name of a branch, counted from 1."""
    return f"{number:03}"


def branch_names(names: Iterable[str]) -> list[str]:
    """Those of some names that are branches, the oldest first.

    >>> branch_names(["002", "001", "003.tmp"])
    ['001', '002']
    """
    return sorted((name for name in names if name.isdecimal()), key=int)
