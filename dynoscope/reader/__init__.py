"""A run folder to tables, while it is written and ever after."""

from dynoscope.reader.cursor import Cursor
from dynoscope.reader.find import find_runs, run_folders
from dynoscope.reader.run import Run, open_run
from dynoscope.schema.pivot import Block, pivot

__all__ = ["Block", "Cursor", "Run", "find_runs", "open_run", "pivot", "run_folders"]
