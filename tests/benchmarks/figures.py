"""Figures, the one form of every result: a value, how far it scatters, its unit."""

import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.benchmarks import machine
from tests.benchmarks.options import Options

__all__ = ["Figure", "keep", "load", "middle", "once", "quartiles", "write_rows"]


class Figure(NamedTuple):
    """One number that was measured.

    Attributes:
        case: what it is about.
        what: what of it was measured.
        value: a median, or what the docstring of the part says.
        low: lower quartile of the repetitions; the value, where there is one.
        high: upper quartile.
        times: repetitions.
        unit: "" for a ratio.
        error: standard error of the value, where that is known.
    """

    case: str
    what: str
    value: float
    low: float
    high: float
    times: int
    unit: str
    error: float | None = None

    @property
    def between(self) -> tuple[float, float]:
        """A standard error to both sides, or else the quartiles."""
        if self.error is None:
            return self.low, self.high
        return self.value - self.error, self.value + self.error


def once(case: str, what: str, value: float, unit: str = "") -> Figure:
    """What was measured a single time."""
    return Figure(case, what, value, value, value, 1, unit)


def middle(case: str, what: str, values: Sequence[float], unit: str = "") -> Figure:
    """Median and quartiles."""
    low, value, high = quartiles(values)
    return Figure(case, what, value, low, high, len(values), unit)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile; of one value, that value."""
    if len(values) < 2:
        return (values[0],) * 3
    low, value, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, value, high


def keep(part: str, figures: Sequence[Figure], options: Options) -> None:
    """Print the figures of a part, and write them with what they were measured on."""
    _show(part, figures)
    rows = [
        [
            *figure[:2],
            *map(_digits, figure[2:5]),
            *figure[5:7],
            "" if figure.error is None else _digits(figure.error),
        ]
        for figure in figures
    ]
    write_rows(options.results / f"{part}.csv", Figure._fields, rows)
    machine.note(part, options)


def load(results: Path, part: str) -> list[Figure]:
    """The figures of a part; none if it has not been run."""
    path = results / f"{part}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Figure(
                row["case"],
                row["what"],
                float(row["value"]),
                float(row["low"]),
                float(row["high"]),
                int(row["times"]),
                row["unit"],
                float(row["error"]) if row.get("error") else None,
            )
            for row in csv.DictReader(file)
        ]


def _show(part: str, figures: Iterable[Figure]) -> None:
    """Print them."""
    table = Table(title=part)
    for column in ("case", "what", "value", "error", "quartiles", "times"):
        side = "left" if column in ("case", "what") else "right"
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for figure in figures:
        between = f"{_digits(figure.low)} to {_digits(figure.high)}"
        table.add_row(
            figure.case,
            figure.what,
            f"{_digits(figure.value)} {figure.unit}".strip(),
            "" if figure.error is None else _digits(figure.error),
            between if figure.times > 1 else "",
            str(figure.times),
        )
    Console(width=110).print(table)


def write_rows(
    path: Path, names: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def _digits(value: float) -> str:
    """Enough digits, and no more."""
    return f"{value:.5g}"
