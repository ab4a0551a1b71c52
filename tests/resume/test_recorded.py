"""Recorded rows come back whole steps at a time, the tables side by side."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dynoscope import open_run
from dynoscope.resume import recorded
from dynoscope.resume.branch import branch_off
from dynoscope.resume.recorded import recorded_rows
from tests.dashboard.runs import WrittenRun

TABLES = ("layers", "groups", "normalization")


@pytest.mark.parametrize("rows", [1, 7, 1 << 14])
@pytest.mark.parametrize(("since", "until"), [(0, 30), (12, 30), (5, 17)])
def test_every_step_comes_once(
    rows: int, since: int, until: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "ROWS", rows)
    run = WrittenRun(tmp_path / "run")
    for flushed in (TABLES, ("layers",), ("groups",), ()):
        run.write(4)
        run.write(4)
        for table in flushed:  # tables have files of different sizes
            run._writers[table].flush()
    run.close()
    branch_off(run.path, until)
    given = list(recorded_rows(run.path, since))
    for batch in given:
        steps = [np.unique(batch[table]["step"]).tolist() for table in TABLES]
        assert steps[0] == steps[1] == steps[2]
        assert len(batch["layers"]) == 3 * len(steps[0])
    opened = open_run(run.path)
    for table in TABLES:
        expected = opened.table(table).to_pandas()
        expected = expected[expected["step"] >= since].reset_index(drop=True)
        found = pd.concat([batch[table].to_pandas() for batch in given])
        pd.testing.assert_frame_equal(found.reset_index(drop=True), expected)
    if rows == 1:
        assert len(given) == until - since
