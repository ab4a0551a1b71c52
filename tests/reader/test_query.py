"""SQL over runs: the rows that the other ways of reading give."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dynoscope.errors import DynoscopeError, DynoscopeWarning
from dynoscope.reader import open_run
from dynoscope.schema import TABLES
from dynoscope.sealing import compact
from tests.dashboard.runs import WrittenRun

AGGREGATES = """
    SELECT layer, count(*) AS rows, max(weight_norm) AS norm, min(step) AS first
    FROM layers GROUP BY layer ORDER BY layer
"""


@pytest.fixture
def written(tmp_path: Path) -> Iterator[WrittenRun]:
    """A segment, a part and a journal of most tables; a quote in the path."""
    run = WrittenRun(tmp_path / "it's a run")
    for _ in range(2):
        run.write(10)
        run.flush()
    run.end()
    compact(run.path)
    run.write(10)
    run.flush()
    run.write(10)
    yield run
    run.close()


def test_all_rows_are_there(written: WrittenRun) -> None:
    run = open_run(written.path)
    found = run.sql(AGGREGATES)
    rows = run.layers()
    wanted = rows.groupby("layer", as_index=False).agg(
        rows=("step", "size"), norm=("weight_norm", "max"), first=("step", "min")
    )
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
    joined = run.sql("""
        SELECT l.step, l.lr = g.lr AS same FROM layers l JOIN groups g USING (step)
        WHERE layer = 'a.bias' ORDER BY step
    """)
    assert joined["step"].tolist() == list(range(40))
    everything = run.sql('SELECT * FROM "layers"')
    assert everything.columns.tolist() == TABLES["layers"].names()
    assert len(everything) == 40 * 3
    assert sorted(run.sql("SHOW TABLES")["name"]) == sorted(TABLES)


def test_what_an_older_version_did_not_write_is_null(written: WrittenRun) -> None:
    run = open_run(written.path)
    part = written.path / "layers" / "part-00000002.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["traj_weight_norm"]), part)
    found = run.sql("SELECT count(*) a, count(traj_weight_norm) b FROM layers")
    assert found.iloc[0].tolist() == [120, 90]
    assert np.isnan(run.layers("traj_weight_norm")["traj_weight_norm"]).sum() == 30


def test_mistakes_are_said(written: WrittenRun) -> None:
    run = open_run(written.path)
    with pytest.raises(DynoscopeError, match="nothing"):
        run.sql("SELECT nothing FROM layers")
    with pytest.raises(DynoscopeError, match="syntax"):
        run.sql("SELEC 1")


def test_damage_is_named_and_the_rest_is_asked(written: WrittenRun) -> None:
    written.end()
    (written.path / "layers" / "part-00000002.parquet").write_bytes(b"not Parquet")
    with pytest.warns(DynoscopeWarning, match="part-00000002"):
        found = open_run(written.path).sql("SELECT count(*) FROM layers")
    assert found.iloc[0, 0] == 90


def test_the_command(written: WrittenRun) -> None:
    written.end()
    command = [sys.executable, "-m", "dynoscope", "query", str(written.path)]
    ask = [*command, AGGREGATES]
    said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[0].split() == ["layer", "rows", "norm", "first"]
    ask = [*command, "--json", "SELECT max(step) AS last, 0.0/0.0 AS gap FROM layers"]
    said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == [{"last": 39, "gap": None}]
    wrong = subprocess.run(
        [*command, "SELECT x"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("dynoscope: ")
