"""Findings on the terminal."""

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dynoscope.findings.finding import SEVERITIES, WHOLE, Finding

__all__ = ["grouped", "print_findings", "print_live", "where"]

STYLES: Final = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings by rule, the worst first; within a rule, the earliest first."""
    rules: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        rules.setdefault((finding.severity, finding.rule), []).append(finding)
    groups = [sorted(group, key=lambda f: f.step) for group in rules.values()]
    return sorted(groups, key=lambda g: (SEVERITIES.index(g[0].severity), g[0].step))


def where(group: Sequence[Finding]) -> str:
    """The first layer of a group, and how many more there are.

    >>> def at(layer):
    ...     return Finding(severity="note", step=0, layer=layer, message="")
    >>> where([at("a"), at("b"), at("c")]), where([at("*")])
    ('a and 2 more layers', 'whole model')
    """
    first = "whole model" if group[0].layer == WHOLE else group[0].layer
    more = len(group) - 1
    return f"{first} and {more} more layer{'s' * (more > 1)}" if more else first


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
    counts = [
        f"{count} {severity}{'s' * (count > 1)}"
        for severity in SEVERITIES
        if (count := sum(f.severity == severity for f in findings))
    ]
    console.print(Text.assemble((name, "bold"), f": {', '.join(counts)}"))
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
