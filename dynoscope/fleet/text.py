"""Many runs on the terminal, a line each."""

import math
from typing import Any, Final

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynoscope.errors import DynoscopeError
from dynoscope.fleet.frames import RUN, UNREADABLE

__all__ = ["print_fleet", "sorted_by"]

STYLES: Final = {
    "failed": "red",
    "lost": "yellow",
    "running": "cyan",
    UNREADABLE: "bold red",
}
SEVERITIES: Final = (("errors", "red"), ("warnings", "yellow"), ("notes", "cyan"))

NAME: Final = 20
"""Characters of a run's name that fit into a line of 80; its end tells more."""


def sorted_by(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows by a column, the smallest first; a "-" in front of it turns that round.

    Raises:
        DynoscopeError: there is no such column; the message lists them.
    """
    name = column.removeprefix("-")
    if name not in frame:
        raise DynoscopeError(
            f"no column {name!r}; there are: {', '.join(map(str, frame))}"
        )
    return frame.sort_values(name, ascending=name == column, kind="stable")


def print_fleet(
    frame: pd.DataFrame, metric: str | None = None, console: Console | None = None
) -> None:
    """Print a table with a line for each run, then what went wrong.

    Args:
        frame: see `Fleet.summaries`.
        metric: the logged number to show; None for the one that most runs have, `loss`
            first.
        console: where to; standard output by default.
    """
    console = console or Console(highlight=False)
    metric = _metric(frame, metric)
    table = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True
    )
    table.add_column("run", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for head in ("steps", metric, "mrad", "of pred.", "dead", "odd"):
        if head is not None:
            table.add_column(Text(_cut(head, 10)), justify="right", no_wrap=True)
    wide = console.width - 80 + NAME
    for row in _rows(frame):
        table.add_row(*_cells(row, metric, max(wide, NAME)))
    console.print(table)
    console.print()
    counts = frame["status"].value_counts()
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(Text(f"{len(frame)} run{'s' * (len(frame) != 1)}: {words}"))
    for row in _rows(frame[frame["problems"] != ""]):
        style = STYLES.get(row["status"], "yellow")
        console.print(Text.assemble((row[RUN], style), f": {row['problems']}"))


def _metric(frame: pd.DataFrame, metric: str | None) -> str | None:
    names = [str(name) for name in frame]
    logged = {n.removeprefix("last."): n for n in names if n.startswith("last.")}
    if metric is not None:
        if metric not in logged:
            there = ", ".join(logged) or "nothing"
            raise DynoscopeError(f"nothing was logged as {metric!r}; there is: {there}")
        return metric
    if "loss" in logged:
        return "loss"
    counts = {name: int(frame[column].count()) for name, column in logged.items()}
    return max(counts, key=counts.__getitem__, default=None)


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[Any] = frame.to_dict("records")
    return rows


def _cells(row: dict[str, Any], metric: str | None, wide: int) -> list[Text]:
    status = row["status"]
    cells = [
        Text(_cut(row[RUN], wide)),
        Text(status, STYLES.get(status, "green")),
        Text(_whole(row.get("step"), 1)),
    ]
    if metric is not None:
        cells.append(Text(_number(row[f"last.{metric}"])))
    cells += [
        Text(_number(row.get("angular_update"), 1e3)),
        Text(_percent(row.get("rotation_share"))),
        Text(_whole(row.get("dead_channels"))),
        _odd(row),
    ]
    return cells


def _odd(row: dict[str, Any]) -> Text:
    """How many errors, warnings and notes, in their colours: `1 E 2 W`."""
    parts: list[tuple[str, str]] = []
    for name, style in SEVERITIES:
        count = row.get(name)
        if not _is_missing(count) and count:
            parts.append((f"{' ' * bool(parts)}{count} {name[0].upper()}", style))
    return Text.assemble(*parts)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[-width + 1 :]}"


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or math.isnan(value)


def _whole(value: Any, more: int = 0) -> str:
    return "-" if _is_missing(value) else f"{int(value) + more:,}"


def _number(value: Any, scale: float = 1.0) -> str:
    return "-" if _is_missing(value) else f"{scale * value:.4g}"


def _percent(value: Any) -> str:
    return "-" if _is_missing(value) else f"{value:.0%}"
