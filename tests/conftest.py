"""What the whole suite prints at its end: the matrix of loops and checks."""

import re
from typing import Any

from tests.conformance.matrix import CHECKS, render

_NODE = re.compile(r"tests/conformance/.*::test_(\w+)\[(.*)\]$")
_MARKS = {"passed": "yes", "skipped": "-", "failed": "NO", "error": "NO"}


def pytest_terminal_summary(terminalreporter: Any) -> None:
    results: dict[tuple[str, str], str] = {}
    for outcome, mark in _MARKS.items():
        for report in terminalreporter.stats.get(outcome, []):
            found = _NODE.search(getattr(report, "nodeid", ""))
            if found and found[1] in CHECKS:
                results[found[2], found[1]] = mark
    if results:
        terminalreporter.section("loops and checks")
        loops = list(dict.fromkeys(loop for loop, _ in results))
        for line in render(results, loops):
            terminalreporter.write_line(line)
