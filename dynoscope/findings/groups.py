"""Findings of many layers, taken together by rule."""

from collections.abc import Iterable, Sequence

from dynoscope.findings.finding import SEVERITIES, WHOLE, Finding

__all__ = ["counted", "grouped", "where"]


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


def counted(findings: Sequence[Finding]) -> str:
    """How many there are of each severity.

    >>> counted([Finding(severity="note", step=0, layer="a", message="")] * 2)
    '2 notes'
    """
    counts = [(s, sum(f.severity == s for f in findings)) for s in SEVERITIES]
    return ", ".join(f"{n} {s}{'s' * (n > 1)}" for s, n in counts if n)
