"""Rows that count no more: a resumed training has superseded them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc

from dynoscope.schema.folder import BRANCHES, CUT, branch_names

__all__ = ["Cut", "branches_of", "pending_cut"]


class Cut(NamedTuple):
    """Rows that are in a branch, and may still be in the tables they came from.

    Attributes:
        step: rows from this step on belong to the branch.
        ends: per table, the number of the first file that is not concerned.
    """

    step: int
    ends: Mapping[str, int]

    def narrow(
        self, table: str, number: int, where: pc.Expression | None = None
    ) -> pc.Expression | None:
        """Which rows of a file count, of those that `where` lets through."""
        if number >= self.ends.get(table, 0):
            return where
        kept = pc.field("step") < self.step
        return kept if where is None else where & kept


def branches_of(run: Path) -> list[str]:
    """Names of a run's branches, the oldest first."""
    try:
        return branch_names(path.name for path in (run / BRANCHES).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def pending_cut(run: Path, branches: list[str]) -> Cut:
    """The cut that a run is under, given its branches; an empty one as a rule."""
    if not branches:
        return Cut(0, {})
    # Each is finished before there is another one.
    try:
        text = (run / BRANCHES / branches[-1] / CUT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return Cut(0, {})
    return Cut(**json.loads(text))
