"""SQL over many runs: the rows that each gives by itself."""

from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from dynoscope import open_fleet, open_run
from dynoscope.errors import DynoscopeError, DynoscopeWarning
from dynoscope.sealing import compact
from tests.fleet.runs import BROKEN, names_in, write_run

left_out = pytest.mark.filterwarnings("ignore:.*:dynoscope.DynoscopeWarning")


@left_out
def test_all_rows_of_all_runs_are_there(few: Path) -> None:
    wanted = []
    for name in names_in(few):
        if name not in BROKEN:
            rows = open_run(few / name).layers()
            groups = rows.groupby("layer", as_index=False).agg(
                rows=("step", "size"), norm=("weight_norm", "max")
            )
            wanted.append(groups.assign(run=name))
    found = open_fleet(few).sql("""
        SELECT layer, count(*) AS rows, max(weight_norm) AS norm, run
        FROM layers GROUP BY ALL ORDER BY run, layer
    """)
    expected = pd.concat([each for each in wanted if len(each)], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)
    joined = open_fleet(few).sql("""
        SELECT count(*) FROM LAYERS JOIN groups USING (run, step)
        WHERE layers.weight_decay = groups.weight_decay AND "group" = 0
    """)
    assert 0 < int(joined.to_numpy()[0, 0]) < expected["rows"].to_numpy().sum()


def test_files_of_all_kinds_and_awkward_names(tmp_path: Path) -> None:
    for seed, name in enumerate(("it's a run", "b", "c")):
        write_run(tmp_path / name, seed, steps=4)
    compact(tmp_path / "b")
    sql = """
        SELECT run, count(*) n FROM scalars WHERE name IN ('loss', 'accuracy')
        GROUP BY run ORDER BY run
    """
    fleet = open_fleet(tmp_path)
    assert fleet.sql(sql).to_dict("list") == {
        "run": ["b", "c", "it's a run"], "n": [8, 4, 4],
    }  # fmt: skip
    assert fleet.sql("SELECT 1 AS one")["one"].tolist() == [1]


def test_what_is_broken_is_named(few: Path) -> None:
    with pytest.warns(DynoscopeWarning) as warned:
        open_fleet(few).sql("SELECT max(step) FROM layers")
    assert len(warned) == len(BROKEN) + 1


def test_mistakes_are_said(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 1, steps=1)
    fleet = open_fleet(tmp_path)
    for wrong in ("SELECT nothing FROM layers", "SELEC", "SELECT * FROM layer"):
        with pytest.raises(DynoscopeError, match="Error"):
            fleet.sql(wrong)


def test_a_copy_in_plain_parquet(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / "runs" / f"{seed}", seed, steps=4)
    fleet = open_fleet(tmp_path / "runs")
    copy = tmp_path / "copy"
    fleet.sql(f"COPY layers TO '{copy}' (FORMAT parquet, PARTITION_BY (run))")
    rows = ds.dataset(copy, partitioning="hive").to_table().to_pandas()
    wanted = fleet.table("layers").to_pandas()
    assert len(rows) == len(wanted) == 3 * 4 * 3
    for column in ("step", "layer", "weight_norm"):
        both = (frame.sort_values(["run", "step", "layer"]) for frame in (rows, wanted))
        a, b = (frame[column].tolist() for frame in both)
        assert a == b
    for path in copy.rglob("*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        for n in range(group.num_columns):
            assert "BYTE_STREAM_SPLIT" not in group.column(n).encodings
