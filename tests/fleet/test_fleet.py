"""Many runs: what each says by itself, whoever asks it."""

import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from distributed import Client

from dynoscope import Run, analysis, open_fleet, open_run
from dynoscope.errors import DynoscopeError, DynoscopeWarning, RunNotFoundError
from dynoscope.findings import Finding, Thresholds, examine
from dynoscope.findings.evidence import Evidence
from tests.fleet.conftest import RUNS
from tests.fleet.runs import BROKEN, LAYERS, names_in

EARLY = pc.field("step") < 3
left_out = pytest.mark.filterwarnings("ignore:.*:dynoscope.DynoscopeWarning")


def equal(a: pd.DataFrame, b: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(a, b, check_exact=True)


@left_out
def test_500_runs_on_a_cluster_say_what_they_say_here(
    many: Path, client: Client
) -> None:
    alone, together = open_fleet(many), open_fleet(many, client)
    assert len(alone) == RUNS
    here = alone.summaries()
    equal(together.summaries(), here)
    assert here["run"].tolist() == names_in(many)
    assert Counter(here["status"]) == {
        "finished": RUNS - 4, "failed": 1, "lost": 1, "unreadable": 2,
    }  # fmt: skip
    found = alone.findings()
    equal(together.findings(), found)
    assert (found["severity"] == "error").sum() >= RUNS // 25 - 2
    counts = found.groupby("run").size()
    summed = here.set_index("run")[["errors", "warnings", "notes"]].sum(axis=1)
    assert (summed[summed > 0] == counts).all()
    columns = ["step", "layer", "angular_update"]
    rows = alone.table("layers", columns, EARLY)
    on_cluster = together.table("layers", columns, EARLY)
    assert on_cluster.schema == rows.schema
    equal(on_cluster.to_pandas(), rows.to_pandas())  # NaN is NaN
    assert rows.column_names == ["run", *columns]
    # two have no manifest, one no step, one a damaged table
    made_up, trained = RUNS - 8, 4
    assert len(rows) == 3 * (LAYERS * made_up + 8 * trained)


@left_out
def test_a_summary_is_that_of_the_run(few: Path) -> None:
    frame = open_fleet(few).summaries().set_index("run")
    for name in names_in(few):
        if name in BROKEN:
            continue
        row = open_run(few / name).summary().row()
        assert row.pop("problems") in frame["problems"][name]
        for key in ("created", "updated"):
            moment = pd.Timestamp(row.pop(key), unit="s", tz="UTC")
            assert frame[key][name] == moment
        row.pop("name")
        for key, value in row.items():
            told = frame[key][name]
            both = pd.isna(told) and (value is None or value != value)
            assert both or told == value, key


def test_what_is_broken_is_named_and_costs_nobody_else_anything(few: Path) -> None:
    fleet = open_fleet(few)
    frame = fleet.summaries().set_index("run")
    for name in BROKEN:
        assert frame["status"][name] == "unreadable"
        assert "run.json" in frame["problems"][name]
    assert "part-00000000" in frame["problems"]["special/damaged"]
    assert "killed" in frame["problems"]["special/lost"]
    assert frame["exception"]["special/failed"] == "ValueError: no more data"
    assert frame["skipped"]["special/failed"] == 2
    with pytest.warns(DynoscopeWarning) as warned:
        fleet.findings()
    assert {str(w.message).split(":")[0] for w in warned} == set(BROKEN)
    with pytest.warns(DynoscopeWarning) as warned:
        fleet.table("layers")
    told = [str(w.message) for w in warned]
    assert sum("special/damaged: layers/part" in each for each in told) == 1
    assert len(told) == 1 + len(BROKEN)


@left_out
def test_rules_are_asked_again(few: Path, client: Client) -> None:
    thresholds = Thresholds(settled_half_lives=0.001)
    wanted = []
    for name in names_in(few):
        if name not in BROKEN:
            again = examine(open_run(few / name), thresholds)
            wanted += [{"run": name, **finding.row()} for finding in again]
    assert wanted
    for workers in (None, client):
        fleet = open_fleet(few, workers)
        found = fleet.findings(again=True, thresholds=thresholds)
        assert found.to_dict("records") == wanted
    with pytest.raises(DynoscopeError, match="again=True"):
        open_fleet(few).findings(thresholds=thresholds)


@left_out
def test_rules_of_ones_own_travel(few: Path, client: Client) -> None:
    limit = 3

    def heavy(evidence: Evidence) -> list[Finding]:
        norms = evidence.column("weight_norm")[-1]
        return [
            Finding(severity="note", step=0, layer=layer, message="It is heavy.")
            for layer, norm in zip(evidence.names, norms, strict=True)
            if norm > limit
        ]

    found = open_fleet(few, client).findings(again=True, rules={"heavy": heavy})
    assert set(found["rule"]) == {"heavy"}
    assert found["run"].nunique() > 4


@left_out
def test_a_worker_that_dies_changes_nothing(
    few: Path, client: Client, tmp_path: Path
) -> None:
    mark = tmp_path / "has died"

    def fatal(run: Run) -> dict[str, object]:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return run.summary().row()

    found = open_fleet(few, client).map(fatal)
    assert mark.exists()
    wanted = open_fleet(few).map(lambda run: run.summary().row())
    assert repr(found) == repr(wanted)  # NaN is NaN
    assert list(found) == [name for name in names_in(few) if name not in BROKEN]


def test_asking_anything(few: Path) -> None:
    fleet = open_fleet(few)
    with pytest.warns(DynoscopeWarning) as warned:
        last = fleet.map(lambda run: run.last_step)
    assert last["special/still"] is None
    assert last["special/failed"] == 4
    assert len(warned) == len(BROKEN)
    with pytest.warns(DynoscopeWarning) as warned:
        assert not fleet.map(analysis.rate)
    assert len(warned) == len(fleet)
    assert any("holds no full gradient" in str(w.message) for w in warned)
    with pytest.raises(ZeroDivisionError) as caught:
        fleet.map(lambda run: 1 // 0)
    assert caught.value.__notes__ == ["in the run 'special/damaged'"]
    assert fleet.open("special/failed").status == "failed"
    with pytest.raises(RunNotFoundError, match="no run 'lion'"):
        fleet.open("lion")


@left_out
def test_a_dask_dataframe(few: Path, client: Client) -> None:
    fleet = open_fleet(few, client)
    frame = fleet.dataframe("layers", where=EARLY)
    wanted = fleet.table("layers", where=EARLY).to_pandas()
    got = frame.compute().reset_index(drop=True)
    pd.testing.assert_frame_equal(got, wanted, check_exact=True, check_dtype=False)
    assert got.dtypes["weight_norm"] == np.float32
    means = frame.groupby("run")["weight_norm"].max().compute().sort_index()
    assert means.to_dict() == wanted.groupby("run")["weight_norm"].max().to_dict()
    findings = fleet.dataframe("findings", ["rule"]).compute()
    assert findings.columns.tolist() == ["run", "rule"]
    with pytest.raises(DynoscopeError, match="no column 'angle'"):
        fleet.dataframe("layers", ["angle"])
    with pytest.raises(DynoscopeError, match="no table 'layer'"):
        fleet.table("layer")


@left_out
def test_columns_have_their_types_even_where_there_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    fleet = open_fleet(tmp_path)
    rows = fleet.table("layers", ["step", "layer"])
    assert rows.schema.types == [pa.string(), pa.int64(), pa.string()]
    assert fleet.findings().columns[0] == "run"
    assert fleet.summaries()["status"].tolist() == ["unreadable"]
