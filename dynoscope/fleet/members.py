"""Which runs a fleet has: those at some places, each under a name of its own."""

import collections
import dataclasses
import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from dynoscope.reader.shelf import run_folders
from dynoscope.remote import is_uri, joined, name_of, runs_below, shown

__all__ = ["Member", "Places", "bunches", "listed", "members_at"]

Places: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

WILDCARDS: Final = frozenset("*?[")

BUNCH_BYTES: Final = 32 << 20
"""Bytes of small runs that are read together."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A run, as it is sent to whoever reads it.

    Attributes:
        name: what it is called among the others.
        place: its folder, absolute, or its URI with all options.
        size: bytes of its files, about.
    """

    name: str
    place: str = dataclasses.field(repr=False)  # it may hold a password
    size: int


def listed(places: Places) -> list[str]:
    """One place or several, as a list."""
    some = [places] if isinstance(places, str | os.PathLike) else places
    return [os.fspath(place) for place in some]


def members_at(places: Sequence[str]) -> list[Member]:
    """The runs at all places, each once.

    A run's name is its path below the place that it was found at; of a place that is
    a run, its own name. Where that would be the name of several it is the whole path.

    Args:
        places: runs, folders of runs, or URIs of either; with wildcards, if wanted.

    Raises:
        StoreError: what is at a URI cannot be read; the message says why.
    """
    found: dict[str, Member] = {}
    for place in places:
        for member in _in_store(place) if is_uri(place) else _in_folder(place):
            found.setdefault(member.place, member)
    count = collections.Counter(member.name for member in found.values())
    return [
        member
        if count[member.name] == 1
        else dataclasses.replace(member, name=shown(member.place))
        for member in found.values()
    ]


def bunches(
    members: Sequence[Member], most: int, size: int = BUNCH_BYTES
) -> list[list[Member]]:
    """Runs to be read one after the other: a large one alone, small ones together.

    Args:
        members: the runs.
        most: how many of them a bunch may have.
        size: bytes from which on it is full.
    """
    found: list[list[Member]] = []
    held = 0
    for member in members:
        if not found or len(found[-1]) == most or held + member.size > size:
            found.append([])
            held = 0
        found[-1].append(member)
        held += member.size
    return found


def _in_folder(place: str) -> Iterator[Member]:
    tops, base = [Path(place)], _without_wildcards(Path(place))
    if base is not None:
        tops = sorted(base.glob(str(tops[0].relative_to(base))))
    # What a wildcard matches may lie within something else that it does.
    looked: set[Path] = set()
    for top in tops:
        if looked.isdisjoint(top.parents):
            looked.add(top)
            for folder in run_folders(top):
                below = folder.relative_to(base or top).as_posix()
                name = folder.resolve().name if below == "." else below
                files = folder.glob("*/*")
                size = sum(path.stat().st_size for path in files if path.is_file())
                yield Member(name, str(folder.absolute()), size)


def _without_wildcards(place: Path) -> Path | None:
    """The folder above the first wildcard; None if there is none."""
    if place.exists() or WILDCARDS.isdisjoint(str(place)):
        return None
    while not WILDCARDS.isdisjoint(str(place)):
        place = place.parent
    return place


def _in_store(uri: str) -> Iterator[Member]:
    parts = urlsplit(uri)
    path, star, _ = parts.path.partition("*")
    base = urlunsplit(parts._replace(path=path.rpartition("/")[0])) if star else uri
    pattern = parts.path[path.rfind("/") + 1 :] if star else "*"
    for key, size in runs_below(base).items():
        if fnmatch.fnmatchcase(key, pattern):
            yield Member(key or name_of(base), joined(base, key), size)
