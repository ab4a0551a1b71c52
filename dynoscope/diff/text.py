"""A comparison on the terminal."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from dynoscope.diff.phrases import (
    change,
    label_of,
    number,
    rows_of,
    setting,
    shorten,
    step,
    unit_of,
)
from dynoscope.diff.result import Diff, Side
from dynoscope.diff.words import verdict

__all__ = ["KEY_METRICS", "print_diff", "progress_bar"]

KEY_METRICS: Final = (
    "angular_update",
    "pred_angular_update",
    "weight_norm",
    "pred_weight_norm",
    "update_ratio",
    "grad_l2",
)
"""What is shown of the whole model."""

LAYERS: Final = 12
SETTINGS: Final = 20
SCALARS: Final = 12
STATUS_STYLE: Final = {"failed": "red", "lost": "yellow", "running": "cyan"}


@contextlib.contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[float], None]]:
    """Show how far a comparison is, as long as it takes.

    Args:
        console: where to; standard error by default. Nothing is shown if it is no
            terminal.

    Yields:
        What is to be told which share is done.
    """
    console = console or Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("comparing", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def print_diff(diff: Diff, console: Console | None = None) -> None:
    """Print tables of settings, layers, the whole model and scalars.

    Args:
        diff: what to print.
        console: where to; standard output by default, without colour if it is
            no terminal.
    """
    console = console or Console(highlight=False)
    narrow = console.width < 100
    _print_runs(console, diff)
    _print_settings(console, diff)
    _print_layers(console, diff, 24 if narrow else 44)
    _print_whole(console, diff)
    _print_scalars(console, diff, 24 if narrow else 44)
    console.print(Text(verdict(diff)))


def _print_runs(console: Console, diff: Diff) -> None:
    for letter, side in (("a", diff.a), ("b", diff.b)):
        console.print(_run_line(letter, side))
    steps, common = diff.steps, diff.layers["layer"].nunique()
    which = f"{steps.first} to {steps.last}" if len(steps) > 1 else str(steps.first)
    measured = f"a measured {steps.of_a}, b {steps.of_b}"
    console.print(f"{len(steps)} common steps, {which} ({measured})")
    only = [
        f"{len(names)} in {letter} only ({shorten(', '.join(names), 40)})"
        for letter, names in (("a", diff.only_a), ("b", diff.only_b))
        if names
    ]
    console.print(Text("; ".join([f"{common} common layers", *only])))
    console.print()


def _run_line(letter: str, side: Side) -> Text:
    status = (side.status, STATUS_STYLE.get(side.status, "green"))
    line = Text.assemble((letter, "bold"), "  ", (side.name, "bold"), "  ")
    return line.append_text(
        Text.assemble(f"{side.optimizer} on {side.model}, ", status, f", {side.path}")
    )


def _print_settings(console: Console, diff: Diff) -> None:
    differ = len(diff.config)
    title = f"Settings: {differ} differ, {diff.config_equal} are equal"
    rows = [
        (shorten(row.key, 40), setting(row.a), setting(row.b))
        for row in rows_of(diff.config.head(SETTINGS))
    ]
    table = _table([("setting", 40), ("a", None), ("b", None)], rows)
    _print(console, title, table if rows else None, differ - len(rows))


def _print_layers(console: Console, diff: Diff, width: int) -> None:
    top = diff.most_different(None)
    rows = [
        (
            shorten(row.layer, width),
            label_of(row.metric),
            number(row.a),
            number(row.b),
            change(row.kind, row.relative),
            step(row.first_step),
        )
        for row in rows_of(top.head(LAYERS))
    ]
    columns = [("layer", width), ("differs most in", None), *_numbers(diff)]
    title = "Layers that differ most, and the metric in which they do"
    _print(console, title, _table(columns, rows), len(top) - len(rows))


def _print_whole(console: Console, diff: Diff) -> None:
    chosen = diff.whole.loc[list(KEY_METRICS)].reset_index()
    rows = [
        (
            f"{label_of(row.metric)}{_in_brackets(unit_of(row.metric))}",
            number(row.a),
            number(row.b),
            change(row.kind, row.relative),
            step(row.first_step),
        )
        for row in rows_of(chosen[chosen["a"].notna() | chosen["b"].notna()])
    ]
    table = _table([("mean over common steps", None), *_numbers(diff)], rows)
    _print(console, "Whole model", table)


def _print_scalars(console: Console, diff: Diff, width: int) -> None:
    scalars = diff.logged
    if scalars.empty:
        return
    rows = [
        (
            shorten(row.name, width),
            *(number(value) for value in (row.a_last, row.b_last)),
            *(number(value) for value in (row.a_min, row.b_min)),
            *(number(value) for value in (row.a_mean, row.b_mean)),
        )
        for row in rows_of(scalars.head(SCALARS))
    ]
    heads = ("last a", "last b", "least a", "least b", "mean a", "mean b")
    columns = [("logged", width), *((head, None) for head in heads)]
    table = _table(columns, rows)
    _print(console, "Scalars over common steps", table, len(scalars) - len(rows))


def _numbers(diff: Diff) -> list[tuple[str, int | None]]:
    beyond = f">{100 * diff.threshold:g}% at"
    return [("a", None), ("b", None), ("b vs a", None), (beyond, None)]


def _in_brackets(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _table(
    columns: Sequence[tuple[str, int | None]], rows: Iterable[Sequence[str]]
) -> Table:
    """A table whose texts are on the left and whose numbers are on the right.

    Args:
        columns: heads and greatest widths; from head `a` on, numbers follow.
        rows: cells.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    texts = {"layer", "setting", "logged", "differs most in", "mean over common steps"}
    for head, width in columns:
        is_text = head in texts
        table.add_column(
            head,
            justify="left" if is_text else "right",
            max_width=width,
            overflow="fold",
            no_wrap=is_text,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _print(console: Console, title: str, table: Table | None, more: int = 0) -> None:
    console.print(Text(title, style="bold"))
    if table is not None:
        console.print(table)
    if more:
        console.print(Text(f"... and {more} more", style="dim"))
    console.print()
