"""A run folder to tables, while it is written and ever after."""

from dynoscope.reader.bulk import Extent
from dynoscope.reader.cursor import Cursor
from dynoscope.reader.find import find_runs
from dynoscope.reader.follow import Piece
from dynoscope.reader.grids import Grid
from dynoscope.reader.levels import Overview
from dynoscope.reader.run import Run, open_run
from dynoscope.reader.series import Series
from dynoscope.reader.shelf import Shelf, shelf
from dynoscope.reader.sources import damage_in
from dynoscope.reader.summary import Summary
from dynoscope.reader.thin import thin
from dynoscope.schema.pivot import Block, pivot

__all__ = [
    "Block",
    "Cursor",
    "Extent",
    "Grid",
    "Overview",
    "Piece",
    "Run",
    "Series",
    "Shelf",
    "Summary",
    "damage_in",
    "find_runs",
    "open_run",
    "pivot",
    "shelf",
    "thin",
]
