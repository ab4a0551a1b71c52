"""Where tests run, and what the suite prints at its end: loops and checks."""

import os
import re
import signal
import threading
from typing import Any

import torch

from tests.conformance.matrix import CHECKS, render

if not torch.cuda.is_available():  # to be set before Triton is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

# In the background of a script Ctrl-C is ignored; programs that tests start inherit it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
