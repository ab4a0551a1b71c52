"""A stream of things in groups that are as large as it takes."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["in_groups"]

_T = TypeVar("_T")


def in_groups(
    items: Iterable[_T], size_of: Callable[[_T], int], enough: int
) -> Iterator[list[_T]]:
    """Items in their order, group by group; they are taken as they are asked for.

    Args:
        items: any number of them.
        size_of: the size of an item.
        enough: size from which on a group is given; only the last may have less.
    """
    group: list[_T] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= enough:
            yield group
            group, size = [], 0
    if group:
        yield group
