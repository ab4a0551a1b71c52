"""What is done with the runs of a fleet, wherever that is: open each, and ask."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.errors import DynoscopeError
from dynoscope.findings import Rule, Thresholds, examine
from dynoscope.fleet.members import Member
from dynoscope.reader import Run, open_run

__all__ = ["Outcome", "asked", "findings_of", "rows_of", "summary_of"]


class Outcome(NamedTuple):
    """What came of a run.

    Attributes:
        run: its name in the fleet.
        answer: what the function gave; None if the run is broken.
        problems: what is damaged, or why there is no answer.
        is_broken: whether there is none.
    """

    run: str
    answer: Any
    problems: list[str]
    is_broken: bool = False


def asked(
    members: Sequence[Member], function: Callable[[Run], Any], *, tolerant: bool = True
) -> list[Outcome]:
    """Ask each run; one that is broken costs no more than its own answer.

    Args:
        members: the runs.
        function: from a run to an answer.
        tolerant: whether any error means that the run is broken, or only those that
            say what the user can do.

    Raises:
        Exception: the function failed otherwise; a note names the run.
    """
    return [_asked(member, function, tolerant) for member in members]


def _asked(member: Member, function: Callable[[Run], Any], tolerant: bool) -> Outcome:
    heard: list[str] = []
    try:
        run = open_run(member.place)
        run.heard = heard
        return Outcome(member.name, function(run), heard)
    except DynoscopeError as error:
        return Outcome(member.name, None, [*heard, str(error)], is_broken=True)
    except Exception as error:
        if not tolerant:
            error.add_note(f"in the run {member.name!r}")
            raise
        why = f"{type(error).__name__}: {error}"
        return Outcome(member.name, None, [*heard, why], is_broken=True)


def summary_of(run: Run) -> dict[str, Any]:
    """The run in one row."""
    return run.summary().row()


def findings_of(
    run: Run,
    *,
    again: bool,
    thresholds: Thresholds | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> list[dict[str, Any]]:
    """What was found while the run was recorded, or is found now, as rows."""
    if again:
        return [finding.row() for finding in examine(run, thresholds, rules)]
    rows: list[Any] = run.findings().to_dict("records")
    return rows


def rows_of(
    run: Run,
    *,
    table: str,
    columns: Sequence[str] | None,
    where: pc.Expression | None,
) -> pa.Table:
    """Rows of one of its tables."""
    return run.table(table, columns, where)
