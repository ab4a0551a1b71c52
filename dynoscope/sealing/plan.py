"""Which files of a table are to be merged: few files, and no row rewritten often."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dynoscope.schema.folder import TableFile

__all__ = ["FULL", "Sized", "all_due", "due"]

FULL: Final = 128 << 20
"""Bytes, before compression, from which on a segment is left as it is: so many can be
sorted in memory, and what has been uploaded is not uploaded anew for ever."""

FAN: Final = 8
"""Files of one kind that are merged at once."""

WORTH: Final = 1 << 20
"""Bytes below which a part alone is not worth sorting."""


class Sized(NamedTuple):
    """A file, and how many bytes it has before compression.

    Attributes:
        file: the file.
        size: its bytes; None if it is not to be touched.
    """

    file: TableFile
    size: int | None


def due(files: Sequence[Sized]) -> list[TableFile]:
    """The newest files that are to be merged while the run goes on; none as a rule.

    Files merge with their like: eight parts, eight segments of eight parts and so on,
    until a segment is full. So there are fewer than 8 files of each kind beside the
    full ones, and a row is rewritten no more often than there are kinds.

    Args:
        files: the files of a table that count, in their order.
    """
    rest = _rest(files)
    oldest = _filling(rest)
    if _size(oldest) >= FULL:
        return [each.file for each in oldest]
    for tier in range(_tier(rest[0].file) + 1 if rest else 0):
        tail = _tail(rest, tier)
        if sum(_tier(each.file) == tier for each in tail) >= FAN:
            return [each.file for each in tail]
    return []


def all_due(files: Sequence[Sized]) -> list[list[TableFile]]:
    """What to merge where nobody writes: all but full segments."""
    groups, rest = [], list(files)
    while rest:
        group = _filling(rest)
        if _is_worth(group):
            groups.append([each.file for each in group])
        rest = rest[max(len(group), 1) :]
    return groups


def _filling(files: Sequence[Sized]) -> list[Sized]:
    """The first files, as many as fill a segment, or up to one that stays as it is."""
    group: list[Sized] = []
    for each in files:
        if _stays(each) or _size(group) >= FULL:
            break
        group.append(each)
    return group


def _stays(each: Sized) -> bool:
    return each.size is None or (each.file.is_segment and each.size >= FULL)


def _is_worth(group: Sequence[Sized]) -> bool:
    if len(group) == 1:
        file = group[0].file
        return not file.is_segment and (not file.is_part or _size(group) >= WORTH)
    return bool(group)


def _rest(files: Sequence[Sized]) -> list[Sized]:
    """The newest files, back to the last one that is full or not to be touched."""
    start = len(files)
    while start and not _stays(files[start - 1]):
        start -= 1
    return list(files[start:])


def _tail(files: Sequence[Sized], tier: int) -> list[Sized]:
    """The newest files up to a tier."""
    start = len(files)
    while start and _tier(files[start - 1].file) <= tier:
        start -= 1
    return list(files[start:])


def _tier(file: TableFile) -> int:
    """0 for a file that covers less than 8 parts, 1 for less than 64, and so on."""
    covered, tier = file.last - file.number + 1, 0
    while covered >= FAN:
        covered, tier = covered // FAN, tier + 1
    return tier


def _size(files: Sequence[Sized]) -> int:
    return sum(each.size or 0 for each in files)
