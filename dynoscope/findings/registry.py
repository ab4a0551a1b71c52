"""The table of rules, and how one gets into it."""

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding

__all__ = ["RULES", "Rule", "rule"]

Rule: TypeAlias = Callable[[Evidence], Iterable[Finding]]
"""A rule is asked again and again while a run goes on, with all that is known so far.
What it has said of a layer before is passed over."""

RULES: Final[dict[str, Rule]] = {}
"""Every rule by name."""


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule: `@rule("my rule")` above a function of the evidence.

    Raises:
        ValueError: there is a rule of that name already.
    """

    def register(function: Rule) -> Rule:
        if name in RULES:
            raise ValueError(f"there is a rule {name!r} already; choose another name")
        RULES[name] = function
        return function

    return register
