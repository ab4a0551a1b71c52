"""The layout of a run folder: which file is which, and which one counts.

    run.json                          the manifest, always replaced atomically
    layers/journal-00000003.arrow     rows as they come, an Arrow IPC stream
    layers/part-00000002.parquet      the rows of journal 2, once it was full
    branches/001/                     rows that a resumed training superseded, a run
    layers/segment-00000000-00000001.parquet    the rows of parts 0 and 1, sorted
    levels/layers-00000000-00000001.parquet     the same, in buckets of many steps

A table's files are numbered. Part n holds all rows of journal n and counts from
the moment it bears its name; journal n is removed after that, and ignored while
it still lies beside its part. In the same way a segment supersedes all files whose
numbers it covers. So at any instant, after any crash, every row is read once.

The rows of a segment are sorted by the column that tells curves apart (`SORTED_BY`)
and by step. Its column `row` gives their order of writing; its metadata says with
which row each of the files begins that it is made of.

Levels belong to the segment of the same numbers, and count as long as it does. They
may be missing.

Of a run that has ended, or was compacted, a table's folder holds Parquet files that all
count, and nothing else: parts and segments of different numbers. So any engine that is
given `runs/*/layers/*.parquet`, or the folders, reads every row once.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = [
    "BRANCHES",
    "CUT",
    "FILE",
    "LEVELS",
    "LEVELS_FILE",
    "MANIFEST",
    "ROW",
    "SCHEMA_VERSION",
    "SORTED_BY",
    "STARTS",
    "TEMPORARY",
    "TableFile",
    "branch_name",
    "branch_names",
    "current_files",
    "journal_name",
    "levels_name",
    "part_name",
    "segment_name",
    "superseded_files",
    "superseded_levels",
]

SCHEMA_VERSION: Final = 2
"""1: without segments. Whatever is new, an old run is read."""
MANIFEST: Final = "run.json"
TEMPORARY: Final = ".tmp"
"""Suffix of a file that is being written; readers pass it over."""
BRANCHES: Final = "branches"
"""Folder of a run that holds its branches."""
CUT: Final = "cut.json"
"""File of a branch whose rows are still being taken out of the tables."""

SORTED_BY: Final[Mapping[str, str]] = {"groups": "group", "scalars": "name"}
"""The column that tells curves apart, where it is not `layer`."""
ROW: Final = "row"
"""Column of a segment: a row's place in the order of writing."""
STARTS: Final = b"starts"
"""Metadata of a segment, as JSON: the place of the first row of each file that it
covers, and the number of all rows."""

LEVELS: Final = "levels"
"""Folder of a run that holds the levels of all tables."""

FILE: Final = (
    r"(?P<kind>journal|part|segment)-(?P<first>\d{8})(?:-(?P<last>\d{8}))?"
    r"\.(?:arrow|parquet)"
)
"""What the name of a table's file looks like: a regular expression."""
LEVELS_FILE: Final = r"(?P<of>\w+)-\d{8}-\d{8}\.parquet"
"""The same of levels."""
_RANK: Final = {"segment": 0, "part": 1, "journal": 2}


class TableFile(NamedTuple):
    """One file of a table.

    Attributes:
        number: its number; of a segment, the first one that it covers.
        is_part: whether it is a Parquet file: a part or a segment.
        name: its name.
        last: the last number that it covers.
    """

    number: int
    is_part: bool
    name: str
    last: int

    @property
    def is_segment(self) -> bool:
        """Whether its rows are sorted, and may have levels beside them."""
        return self.name.startswith("segment")

    def levels(self, table: str) -> str:
        """File name of the levels that belong to a segment of a table."""
        return levels_name(table, self.number, self.last)


def part_name(number: int) -> str:
    """File name of a Parquet part."""
    return f"part-{number:08}.parquet"


def journal_name(number: int) -> str:
    """File name of a journal."""
    return f"journal-{number:08}.arrow"


def segment_name(first: int, last: int) -> str:
    """File name of the segment that covers the files with these numbers."""
    return f"segment-{first:08}-{last:08}.parquet"


def levels_name(table: str, first: int, last: int) -> str:
    """File name of the levels that belong to that segment."""
    return f"{table}-{first:08}-{last:08}.parquet"


def current_files(names: Iterable[str]) -> list[TableFile]:
    """The files of a table that count, in the order of their rows.

    >>> [file.name for file in current_files([
    ...     "part-00000000.parquet", "journal-00000000.arrow", "part-00000001.parquet",
    ...     "segment-00000001-00000002.parquet",
    ... ])]
    ['part-00000000.parquet', 'segment-00000001-00000002.parquet']
    """
    current: list[TableFile] = []
    found = (file for name in names if (file := _parsed(name)) is not None)
    # Of two files that overlap, one covers the other: it comes first.
    for file in sorted(found, key=_precedence):
        if not current or file.number > current[-1].last:
            current.append(file)
    return current


def superseded_files(names: Iterable[str]) -> list[str]:
    """Files of a table that do not count any more."""
    there = set(names)
    gone = there - {file.name for file in current_files(there)}
    return sorted(name for name in gone if _parsed(name) is not None)


def superseded_levels(
    table: str, names: Iterable[str], files: Iterable[TableFile]
) -> list[str]:
    """Levels of a table that do not count any more, given the files that do."""
    counting = {file.levels(table) for file in files if file.is_segment}
    found = ((name, re.fullmatch(LEVELS_FILE, name)) for name in names)
    mine = {name for name, match in found if match and match["of"] == table}
    return sorted(mine - counting)


def branch_name(number: int) -> str:
    """Folder name of a branch, counted from 1."""
    return f"{number:03}"


def branch_names(names: Iterable[str]) -> list[str]:
    """Those of some names that are branches, the oldest first.

    >>> branch_names(["002", "001", "003.tmp"])
    ['001', '002']
    """
    return sorted((name for name in names if name.isdecimal()), key=int)


def _parsed(name: str) -> TableFile | None:
    match = re.fullmatch(FILE, name)
    if match is None:
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return TableFile(first, match["kind"] != "journal", name, last)


def _precedence(file: TableFile) -> tuple[int, int, int]:
    return file.number, -file.last, _RANK[file.name.split("-")[0]]
