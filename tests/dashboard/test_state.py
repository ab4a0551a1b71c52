import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

import dynoscope
from dynoscope import open_run
from dynoscope.dashboard import tracks as tracks_module
from dynoscope.dashboard.state import RunState
from dynoscope.reader import Cursor
from dynoscope.schema import TABLES
from tests.dashboard.runs import WrittenRun, columns_of

COLUMNS = [c.name for c in TABLES["layers"].columns if c.role != "key"]


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Rows that any cursor gave out, by table."""
    counts: dict[str, int] = {}
    poll = Cursor.poll

    def counting(self: Cursor, *args: int) -> pa.Table:
        table = poll(self, *args)
        counts[self._table] = counts.get(self._table, 0) + len(table)
        return table

    monkeypatch.setattr(Cursor, "poll", counting)
    return counts


def assert_equals_run(state: RunState, path: Path) -> None:
    run = open_run(path)
    for name in (*run.layer_names, *run.roll_ups):
        frame = run.layers(layer=name)
        steps, columns = columns_of(state, name, COLUMNS)
        np.testing.assert_array_equal(steps, frame["step"])
        for column in COLUMNS:
            # Roll-ups are worked out in float64 here and there: equal but for order.
            np.testing.assert_allclose(
                columns[column], frame[column], rtol=1e-12, err_msg=f"{name} {column}"
            )
    for table, frame in (
        ("neurons", run.neurons()), ("normalization", run.normalization())
    ):  # fmt: skip
        for layer in state.curves[table]:
            of_layer = frame[frame["layer"] == layer]
            for column in TABLES[table].names("measured"):
                held = state.held(table, layer, [column])[column]
                np.testing.assert_array_equal(held.buckets.mean, of_layer[column])
    scalars = run.scalars()
    assert state.scalars == set(scalars["name"])
    for name in state.scalars:
        of_name = scalars[scalars["name"] == name]
        held = state.held("scalars", name, ["value"])["value"]
        np.testing.assert_array_equal(held.steps, of_name["step"])
        np.testing.assert_array_equal(held.buckets.mean, of_name["value"])
    held = state.held("groups", 0, ["lr"])["lr"]
    np.testing.assert_array_equal(held.buckets.mean, run.groups()["lr"])


def test_first_look_equals_the_run(written: WrittenRun) -> None:
    state = RunState(open_run(written.path))
    assert state.refresh()
    assert_equals_run(state, written.path)


def test_refreshes_equal_a_full_read(written: WrittenRun) -> None:
    state = RunState(open_run(written.path))
    state.refresh()
    assert_equals_run(state, written.path)  # so that all that is held has to grow
    for steps, flush in ((3, False), (1, True), (5, False), (2, True)):
        written.write(steps)
        if flush:
            written.flush()
        state.refresh()
        assert_equals_run(state, written.path)


def test_refresh_reads_only_what_is_new(
    written: WrittenRun, rows_read: dict[str, int]
) -> None:
    state = RunState(open_run(written.path))
    state.refresh()
    assert "layers" not in rows_read  # nobody has looked at one
    columns_of(state, "a.weight")
    assert rows_read["layers"] == 20 * 3  # the journal
    version = state.version
    state.refresh()
    assert rows_read["layers"] == 20 * 3
    assert state.version == version
    written.write(2)
    state.refresh()
    assert rows_read["layers"] == 22 * 3
    assert rows_read["scalars"] == 22 * 2
    assert state.version > version


def test_what_nobody_looks_at_is_let_go(
    written: WrittenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracks_module, "PATIENCE", 2)
    state = RunState(open_run(written.path))
    state.refresh()
    columns_of(state, "a.weight")
    for _ in range(6):
        written.write(1)
        state.refresh()
        columns_of(state, "a.bias")
    assert len(list(state.tracks)) == 1
    steps, _ = columns_of(state, "a.weight")
    assert steps.tolist() == list(range(46))


def test_damage_is_named(written: WrittenRun) -> None:
    written.end()
    (written.path / "layers/part-00000000.parquet").write_bytes(b"garbage")
    state = RunState(open_run(written.path))
    state.refresh()
    assert "layers/part-00000000.parquet" in state.damage[0]


def test_a_module_has_each_layer_as_of_its_last_turn(tmp_path: Path) -> None:
    """Also where rows come one by one."""
    model = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Linear(7, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", every=1, turns=3, quiet=True
    ) as scope:
        looked = None
        for step in range(12):
            model(torch.randn(8, 6)).square().sum().backward()
            optimizer.step()
            while open_run(tmp_path / "run").last_step != step:
                time.sleep(0.01)  # the writer's thread is at it
            state = looked = looked or RunState(open_run(tmp_path / "run"))
            state.refresh()
            state.held("layers", "*", ["weight_norm", "angular_update"])
    assert scope.step == 12
    state.refresh()
    frame = open_run(tmp_path / "run").layers(layer="*")
    assert frame["step"].tolist() == list(range(2, 12))
    for metric in ("weight_norm", "angular_update"):
        held = state.held("layers", "*", [metric])[metric]
        assert held.steps.tolist() == list(range(12))
        assert np.isnan(held.buckets.mean[:2]).all()
        np.testing.assert_allclose(held.buckets.mean[2:], frame[metric], rtol=1e-12)
        assert held.last == pytest.approx(frame[metric].iloc[-1])
    steps, columns = columns_of(state, "2.weight", COLUMNS)
    rows = open_run(tmp_path / "run").layers(layer="2.weight")
    np.testing.assert_array_equal(steps, rows["step"])
    np.testing.assert_array_equal(columns["weight_norm"], rows["weight_norm"])


def test_a_layer_whose_optimizer_did_not_step_has_no_gaps(tmp_path: Path) -> None:
    models = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in models]
    with dynoscope.watch(models, optimizers, run=tmp_path / "run", quiet=True):
        for index in range(6):
            for model, optimizer in zip(models, optimizers, strict=True):
                if model is models[0] or index % 2:
                    model(torch.randn(5, 3)).square().sum().backward()
                    optimizer.step()
    state = RunState(dynoscope.open_run(tmp_path / "run"))
    assert state.refresh()
    for layer, wanted in (("0.0.weight", range(6)), ("1.0.weight", range(1, 6, 2))):
        steps, columns = columns_of(state, layer, ["angular_update"])
        assert steps.tolist() == list(wanted)
        assert np.isfinite(columns["angular_update"]).all()
    assert state.curves["normalization"] == ["0.1.bias", "1.1.bias"]
    held = state.held("normalization", "0.1.bias", ["revived"])["revived"]
    revived = held.all_buckets.mean
    assert np.isfinite(revived[1::2]).all()
    assert np.isnan(revived[0::2, 1]).all()
