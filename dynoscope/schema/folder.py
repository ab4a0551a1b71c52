"""The layout of a run folder: which file is which, and which one counts.

    run.json                          the manifest, always replaced atomically
    layers/journal-00000003.arrow     rows as they come, an Arrow IPC stream
    layers/part-00000002.parquet      the rows of journal 2, once it was full
    branches/001/                     rows that a resumed training superseded, a run
    layers/segment-00000000-00000001.parquet    the rows of parts 0 and 1, sorted
    layers/levels-00000000-00000001.parquet     the same, in buckets of many steps

A table's files are numbered. Part n holds all rows of journal n and counts from
the moment it bears its name; journal n is removed after that, and ignored while
it still lies beside its part. In the same way a segment supersedes all files whose
numbers it covers. So at any instant, after any crash, every row is read once.

The rows of a segment are sorted by the column that tells curves apart (`SORTED_BY`)
and by step. Its column `row` gives their order of writing; its metadata says with
which row each of the files begins that it is made of.

Levels belong to the segment of the same numbers. They may be missing.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

__all__ = [
    "BRANCHES",
    "CUT",
    "FILE",
    "MANIFEST",
    "ROW",
    "SCHEMA_VERSION",
    "SORTED_BY",
    "STARTS",
    "TEMPORARY",
    "TableFile",
    "branch_name",
    "branch_names",
    "counting_files",
    "current_files",
    "current_levels",
    "journal_name",
    "levels_name",
    "part_name",
    "segment_name",
    "superseded_files",
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

FILE: Final = (
    r"(?P<kind>journal|part|segment|levels)-(?P<first>\d{8})(?:-(?P<last>\d{8}))?"
    r"\.(?:arrow|parquet)"
)
"""What the name of a table's file looks like: a regular expression."""
_PATTERN: Final = re.compile(FILE)
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

    @property
    def levels(self) -> str:
        """File name of the levels beside a segment."""
        return levels_name(self.number, self.last)


def part_name(number: int) -> str:
    """File name of a Parquet part."""
    return f"part-{number:08}.parquet"


def journal_name(number: int) -> str:
    """File name of a journal."""
    return f"journal-{number:08}.arrow"


def segment_name(first: int, last: int) -> str:
    """File name of the segment that covers the files with these numbers."""
    return f"segment-{first:08}-{last:08}.parquet"


def levels_name(first: int, last: int) -> str:
    """File name of the levels beside that segment."""
    return f"levels-{first:08}-{last:08}.parquet"


def current_files(names: Iterable[str]) -> list[TableFile]:
    """The files of a table that count, in the order of their rows.

    >>> [file.name for file in current_files([
    ...     "part-00000000.parquet", "journal-00000000.arrow", "part-00000001.parquet",
    ...     "segment-00000001-00000002.parquet", "levels-00000001-00000002.parquet",
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


def current_levels(names: Iterable[str]) -> dict[str, str]:
    """The levels of a table that count, by the name of their segment."""
    there = set(names)
    files = current_files(there)
    return {f.name: f.levels for f in files if f.is_segment and f.levels in there}


def superseded_files(names: Iterable[str]) -> list[str]:
    """Files of a table that do not count any more, levels included."""
    there = set(names)
    gone = there - set(counting_files(there))
    return sorted(name for name in gone if _PATTERN.fullmatch(name))


def counting_files(names: Iterable[str]) -> list[str]:
    """Names of the files of a table that count, levels before their segment.

    In this order they may be copied: whoever reads what is copied so far sees every
    row once, and none before an earlier one.
    """
    there = set(names)
    levels = current_levels(there)
    files = (file.name for file in current_files(there))
    return [n for file in files for n in (levels.get(file), file) if n is not None]


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
    match = _PATTERN.fullmatch(name)
    if match is None or match["kind"] == "levels":
        return None
    first, last = int(match["first"]), int(match["last"] or match["first"])
    return TableFile(first, match["kind"] != "journal", name, last)


def _precedence(file: TableFile) -> tuple[int, int, int]:
    return file.number, -file.last, _RANK[file.name.split("-")[0]]
