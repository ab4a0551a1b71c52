"""The files of runs that have ended, as other engines read them: each row once."""

import glob
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.dataset as ds
import pytest

from dynoscope import open_run
from dynoscope.reader.files import list_files
from dynoscope.recorder import journal
from dynoscope.recorder.journal import TableWriter
from dynoscope.schema import TABLES
from dynoscope.schema.arrow import arrow_schema
from dynoscope.sealing import coarse, compact
from dynoscope.sealing.segment import write_segment
from tests.fleet.runs import write_run
from tests.sealing.runs import table_rows

RUNS = ("short", "sealed", "killed")
KEYS = ["run", "step", "layer"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part alone; segments with levels; journals, and files that are superseded."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coarse, "LEAST", 1)
        write_run(folder / "short", 1)
        patch.setattr(journal, "PART_ROWS", 20)
        write_run(folder / "sealed", 2, steps=200)
        write_run(folder / "killed", 3, steps=200)
        kill(folder / "killed")
        shutil.copytree(folder / "short", folder / "killed" / "branches" / "001")
        for name in RUNS:
            compact(folder / name)
    assert [path.name for path in (folder / "short" / "layers").iterdir()] == [
        "part-00000000.parquet"
    ]
    for name in RUNS[1:]:
        assert list((folder / name / "levels").iterdir())
    return folder


def kill(run: Path) -> None:
    """Leave in a run what it might have left had it been killed while it was sealed."""
    layers, spare = run / "layers", run / "spare"
    shutil.copytree(layers, spare)
    write_segment(layers, list_files(run, "layers")[:4])
    for path in spare.iterdir():
        shutil.copy(path, layers)  # superseded, and not removed yet
    shutil.rmtree(spare)
    (layers / "segment-00000009-00000012.parquet.1-2.tmp").write_bytes(b"half a file")
    writer = TableWriter(run, "layers")
    writer.append(table_rows("layers", range(200, 220)))
    writer.abandon()
    assert {path.name[:3] for path in layers.iterdir()} == {"par", "seg", "jou"}


def wanted(runs: Path, table: str) -> pd.DataFrame:
    frames = []
    for name in RUNS:
        rows: pd.DataFrame = open_run(runs / name).table(table).to_pandas()
        rows.insert(0, "run", name)
        frames.append(rows)
    return pd.concat(frames, ignore_index=True)


def same(found: pd.DataFrame, wanted: pd.DataFrame, keys: list[str]) -> None:
    found, wanted = (
        frame[wanted.columns].sort_values(keys, kind="stable", ignore_index=True)
        for frame in (found, wanted)
    )
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, check_exact=True)


def test_rows_of_layers_by_duckdb(runs: Path) -> None:
    expected = wanted(runs, "layers")
    assert len(expected) == 3 * (12 + 200 + 200 + 20)
    found = duckdb.execute(f"""
        SELECT * EXCLUDE (filename), split_part(filename, '/', -3) AS run
        FROM read_parquet('{runs}/*/layers/*.parquet',
                          union_by_name = true, filename = true)
    """).df()
    same(found, expected, KEYS)


@pytest.mark.parametrize("table", ["layers", "groups", "scalars"])
def test_rows_of_tables_by_pyarrow(runs: Path, table: str) -> None:
    files = sorted(glob.glob(f"{runs}/*/{table}/*.parquet"))  # noqa: PTH207
    schema = arrow_schema(table)
    rows = ds.dataset(files, schema=schema).to_table([*schema.names, "__filename"])
    found = rows.to_pandas()
    found["run"] = found["__filename"].map(lambda path: Path(path).parts[-3])
    expected = wanted(runs, table)
    keys = [key for key in TABLES[table].names("key") if key != "wall_time"]
    same(found, expected, ["run", *keys])


def test_a_folder_of_a_table_holds_nothing_else(runs: Path) -> None:
    """What engines read that take folders, not patterns."""
    for name in RUNS:
        for table in ("layers", "groups", "scalars"):
            files = list((runs / name / table).iterdir())
            assert files
            assert {path.suffix for path in files} == {".parquet"}
            rows = sum(len(ds.dataset(path).to_table()) for path in files)
            assert rows == len(open_run(runs / name).table(table))
