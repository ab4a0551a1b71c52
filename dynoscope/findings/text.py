"""Findings on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynoscope.findings.finding import Finding
from dynoscope.findings.groups import counted, grouped, where

__all__ = ["print_findings", "print_live"]

STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_live(findings: Iterable[Finding], console: Console | None = None) -> None:
    """Say findings while a training goes on: a line or two for each rule."""
    console = console or Console(stderr=True, highlight=False)
    for group in grouped(findings):
        first = group[0]
        console.print(
            Text.assemble(
                "dynoscope: ",
                (first.severity, STYLES[first.severity]),
                f" since step {first.step}, ",
                (where(group), "bold"),
                f": {first.message}",
            )
        )


def print_findings(
    name: str, findings: Sequence[Finding], console: Console | None = None
) -> None:
    """Print a table with a row for each rule.

    Args:
        name: name of the run.
        findings: what was found.
        console: where to; standard output by default.
    """
    console = console or Console(highlight=False)
    if not findings:
        console.print(Text(f"{name}: nothing odd was found."))
        return
    console.print(Text.assemble((name, "bold"), f": {counted(findings)}"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("since step", justify="right", max_width=10)
    table.add_column("finding", overflow="fold")
    for group in grouped(findings):
        first = group[0]
        cell = Text.assemble(
            (first.severity, STYLES[first.severity]),
            f"  {first.rule}  ",
            (where(group), "bold"),
            f"\n{first.message}\n",
            (f"{first.source}", "dim"),
        )
        table.add_row(str(first.step), cell)
        table.add_row("", "")
    console.print(table)
