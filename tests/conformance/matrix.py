"""The matrix of loops and checks, as it is printed and as the README shows it."""

from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["CHECKS", "render"]

CHECKS: Final[Mapping[str, str]] = {
    "bit_identical": "bit-identical",
    "right_numbers": "right numbers",
    "nothing_is_left": "nothing left",
    "copies": "copies, pickles",
    "again": "runs again",
    "exceptions_pass": "exceptions pass",
}
"""Test by heading of its column."""


def render(results: Mapping[tuple[str, str], str], loops: Sequence[str]) -> list[str]:
    """Lines of a Markdown table.

    Args:
        results: by loop and check, what to put there.
        loops: the rows, in order.
    """
    width = max(map(len, loops))
    headings = CHECKS.values()
    lines = [
        " | ".join(["| " + "loop".ljust(width), *headings]) + " |",
        "|"
        + "|".join(["-" * (width + 2), *("-" * (len(h) + 2) for h in headings)])
        + "|",
    ]
    for loop in loops:
        cells = [
            results.get((loop, check), "").ljust(len(heading))
            for check, heading in CHECKS.items()
        ]
        lines.append(" | ".join(["| " + loop.ljust(width), *cells]) + " |")
    return lines
