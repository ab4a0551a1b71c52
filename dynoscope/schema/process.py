"""Which process writes a run, and whether it still lives."""

import dataclasses
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["Writer", "is_gone"]

SILENT_SECONDS: Final = 60.0
"""A writer on another host that was not heard of for this long is gone."""


@dataclasses.dataclass(frozen=True)
class Writer:
    """A process, told apart from a later one with the same number.

    Attributes:
        host: host name.
        pid: process number.
        started: start time of the process in clock ticks since boot, 0 where
            the system does not tell.
    """

    host: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> "Writer":
        """The calling process."""
        return cls(platform.node(), os.getpid(), _start_time(os.getpid()))

    def is_gone(self) -> bool | None:
        """Whether it has ended; None if it runs on another host."""
        if self.host != platform.node():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # somebody else's process: it exists
        return self.started != _start_time(self.pid)


def is_gone(manifest: Mapping[str, Any], now: float | None = None) -> bool:
    """Whether the writer of a run has ended without saying so.

    Args:
        manifest: the run's manifest.
        now: when it was read, if not just now.
    """
    gone = Writer(**manifest["writer"]).is_gone()
    if gone is None:
        silent = (time.time() if now is None else now) - manifest["heartbeat"]
        return bool(silent > SILENT_SECONDS)
    return gone


def _start_time(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0  # no /proc here, or the process has just ended
    # The command, in parentheses, may hold spaces: count fields after it.
    state, *fields = stat.rpartition(")")[2].split()
    return -1 if state == "Z" else int(fields[18])
