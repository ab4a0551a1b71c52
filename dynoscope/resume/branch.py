"""Rows that a resumed training supersedes, moved into a branch of their run.

A branch is complete before it bears its name, and from that moment on the rows are
in it and no longer in the tables: readers pass over what the tables still hold until
every file has been written anew. A move that was interrupted is undone before that
moment, and finished after it, by the next one.
"""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader.cuts import branches_of, pending_cut
from dynoscope.reader.files import list_files, read_part, read_table, read_tail, rows_of
from dynoscope.reader.manifest import read_manifest
from dynoscope.recorder.journal import write_part
from dynoscope.recorder.manifest import Manifest
from dynoscope.schema import TABLES
from dynoscope.schema.folder import (
    BRANCHES,
    CUT,
    TEMPORARY,
    TableFile,
    branch_name,
    journal_name,
)
from dynoscope.sealing import cut_segment

__all__ = ["branch_off", "tidy"]


def branch_off(run: Path, step: int) -> str | None:
    """Move the rows of a run from a step on into a branch.

    Args:
        run: the run's folder; nobody writes to it.
        step: first step that is superseded.

    Returns:
        Name of the branch; None if there is no such row.
    """
    tidy(run)
    listed = {table: list_files(run, table) for table in TABLES}
    concerned = {
        table: [file for file in files if _last_step(run / table, file) >= step]
        for table, files in listed.items()
    }
    if not any(concerned.values()):
        return None
    name = branch_name(len(branches_of(run)) + 1)
    draft = run / BRANCHES / (name + TEMPORARY)
    draft.mkdir(parents=True)
    manifest = read_manifest(run)
    for table, files in concerned.items():
        for file in files:
            rows, problem = _rows(run / table, file)
            manifest["problems"] += [problem] if problem else []
            (draft / table).mkdir(exist_ok=True)
            superseded = rows.filter(pc.greater_equal(rows["step"], step))
            write_part(draft / table, file.number, superseded)
    Manifest(draft, _superseded(manifest, draft, step)).write()
    ends = {table: files[-1].last + 1 for table, files in listed.items() if files}
    cut = json.dumps({"step": step, "ends": ends})
    (draft / CUT).write_text(cut, encoding="utf-8")
    draft.rename(run / BRANCHES / name)
    tidy(run)
    return name


def tidy(run: Path) -> None:
    """Finish a move of rows that was interrupted, or undo it."""
    for draft in (run / BRANCHES).glob(f"*{TEMPORARY}"):
        shutil.rmtree(draft)  # the tables still hold all that is in it
    branches = branches_of(run)
    cut = pending_cut(run, branches)
    for table, end in cut.ends.items():
        for file in list_files(run, table):
            if file.number < end:
                _cut_file(run / table, file, cut.step)
    if cut.ends:
        (run / BRANCHES / branches[-1] / CUT).unlink()


def _cut_file(folder: Path, file: TableFile, step: int) -> None:
    """Leave the rows of a file that come before a step."""
    if _last_step(folder, file) >= step and file.is_segment:
        cut_segment(folder, file, step)
    elif _last_step(folder, file) >= step:
        rows, _ = _rows(folder, file)
        # A part even if no row is left, so that its number is not given again.
        write_part(folder, file.number, rows.filter(pc.less(rows["step"], step)))
        file = file._replace(is_part=True)
    if file.is_part and not file.is_segment:
        (folder / journal_name(file.number)).unlink(missing_ok=True)


def _superseded(manifest: dict[str, Any], branch: Path, step: int) -> dict[str, Any]:
    """The manifest of a branch."""
    steps, _ = read_table(branch, "groups", ["step"])
    measured = steps["step"].unique()
    last = pc.max(measured).as_py()
    counts = {"step": last, "measured": len(measured), "skipped": 0, "lost": 0}
    return {
        **manifest,
        "status": "superseded",
        "superseded": {"from": step, "to": last, "time": time.time()},
        "progress": {**manifest["progress"], **counts},
        "resumed": [],
    }


def _last_step(folder: Path, file: TableFile) -> int:
    """Highest step in a file, -1 if there is no row that can be read."""
    rows, _ = _rows(folder, file, ["step"])
    return int(pc.max(rows["step"]).as_py()) if len(rows) else -1


def _rows(
    folder: Path, file: TableFile, columns: list[str] | None = None
) -> tuple[pa.Table, str]:
    """The rows of a file that can be read, whether they count or not."""
    path = folder / file.name
    if file.is_part:
        return read_part(path, folder.name, columns)
    tail = read_tail(path)
    rows = rows_of(tail, folder.name)
    return rows.select(columns or rows.column_names), tail.problem
