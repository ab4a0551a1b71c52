"""A run folder to tables, while it is written and ever after."""

from dynoscope.reader.cursor import Cursor
from dynoscope.reader.run import Run, find_runs, open_run

__all__ = ["Cursor", "Run", "find_runs", "open_run"]
