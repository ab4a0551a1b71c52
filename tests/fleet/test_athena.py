"""What Athena is told: columns as the files have them, a partition for each run."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dynoscope import open_fleet
from dynoscope.errors import DynoscopeError
from dynoscope.fleet.athena import create_table
from dynoscope.fleet.members import Member
from dynoscope.schema import TABLES
from tests.fleet.runs import write_run

MEMBERS = [
    Member("lion", "s3://key:secret@bucket/runs/lion?scheme=http", 1),
    Member("it's", "s3://bucket/runs/it's", 1),
]
HIVE = {"INT64": "bigint", "DOUBLE": "double", "FLOAT": "float", "BYTE_ARRAY": "string"}


def columns_of(sql: str) -> list[tuple[str, str]]:
    return re.findall(r"^  `(\w+)` ([\w<>]+)", sql, re.M)


@pytest.mark.parametrize("table", ["layers", "scalars"])
def test_columns_are_those_of_the_files(tmp_path: Path, table: str) -> None:
    write_run(tmp_path / "run", 1)
    (part,) = (tmp_path / "run" / table).iterdir()
    schema = pq.ParquetFile(part).schema
    wanted = [(c.name, HIVE[c.physical_type]) for c in schema]
    assert columns_of(create_table(table, MEMBERS)) == wanted


def test_lists_are_arrays() -> None:
    found = dict(columns_of(create_table("histograms", MEMBERS)))
    assert found["counts"] == "array<bigint>"
    assert list(found) == TABLES["histograms"].names()


def test_each_run_is_a_partition() -> None:
    table, partitions = create_table("layers", MEMBERS).split(";")[:2]
    assert table.startswith("CREATE EXTERNAL TABLE IF NOT EXISTS `layers` (")
    assert "PARTITIONED BY (`run` string)\nSTORED AS PARQUET" in table
    assert "`angular_update` float COMMENT 'rad'," in table
    assert partitions.strip().splitlines() == [
        "ALTER TABLE `layers` ADD IF NOT EXISTS",
        "  PARTITION (run = 'lion') LOCATION 's3://bucket/runs/lion/layers/'",
        r"  PARTITION (run = 'it\'s') LOCATION 's3://bucket/runs/it\'s/layers/'",
    ]


def test_what_is_not_in_s3_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 1, steps=1)
    with pytest.raises(DynoscopeError, match=r"run is not in S3.*dynoscope push"):
        open_fleet(tmp_path).athena("layers")
    with pytest.raises(DynoscopeError, match="no table 'nothing'"):
        open_fleet(tmp_path).athena("nothing")
