"""Columns come back as they were put away, whole and in pieces."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynoscope.sealing import spill
from dynoscope.sealing.spill import Spilled

ROWS = 1000
RANDOM = np.random.default_rng(0)
COLUMNS = {
    "whole": pa.array(RANDOM.integers(-5, 5, ROWS)),
    "short": pa.array(RANDOM.integers(0, 5, ROWS, np.int32)),
    "float": pa.array(RANDOM.normal(size=ROWS).astype(np.float32)),
    "double": pa.array(np.where(RANDOM.random(ROWS) < 0.1, np.nan, 1 / 3)),
    "name": pa.array([f"layer{n % 7}" for n in range(ROWS)]).dictionary_encode(),
    "list": pa.array([[n] * (n % 3) for n in range(ROWS)], pa.list_(pa.int64())),
    "bool": pa.array(RANDOM.random(ROWS) < 0.5),
}


@pytest.mark.parametrize("small", [1, 1 << 30])
def test_columns_come_back_as_they_were(
    small: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "SMALL", small)
    with Spilled(tmp_path) as rows:
        for name, column in COLUMNS.items():
            rows.add(pa.field(name, column.type, nullable=False), column)
        assert len(rows) == ROWS
        assert rows.schema.names == list(COLUMNS)
        for name, column in COLUMNS.items():
            np.testing.assert_equal(rows[name].to_pylist(), column.to_pylist())
        for start, length in [(0, ROWS), (0, 1), (17, 400), (ROWS - 1, 1)]:
            piece = rows.slice(start, length)
            for name, column in COLUMNS.items():
                found = piece[name].to_pylist()
                np.testing.assert_equal(
                    found, column[start : start + length].to_pylist()
                )
    assert not list(tmp_path.iterdir())
