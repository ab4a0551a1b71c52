"""Processes and those they have started: their time, and how to make them stand still.

Linux only: it reads /proc.
"""

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["children_seconds", "family", "tell"]


def family(pid: int) -> list[int]:
    """A process and all that live below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(path.parent.name)] = int(_fields(path)[1])
    found = [pid]
    for parent in found:  # it grows
        found += [child for child, its in parents.items() if its == parent]
    return found


def children_seconds(pid: int) -> float:
    """CPU time of those below a process that live, and of their ended children."""
    ticks = 0
    for child in family(pid)[1:]:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _fields(Path(f"/proc/{child}/stat"))[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def tell(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all below it."""
    for each in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


def _fields(path: Path) -> list[str]:
    """Of a process's state, from the third on: the second may hold spaces."""
    return path.read_text().rpartition(")")[2].split()
