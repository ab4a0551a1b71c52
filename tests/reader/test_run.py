"""A run as frames: selection, roll-ups, status, and what cannot be opened."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import dynoscope
from dynoscope.errors import DynoscopeError, DynoscopeWarning, RunNotFoundError
from dynoscope.reader import Cursor
from dynoscope.schema import TABLES
from dynoscope.schema.folder import journal_name
from tests.networks import OPTIMIZERS, MixedNet, train

STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=folder, quiet=True) as scope:
        train(model, optimizer, STEPS, lambda loss: scope.log(loss=loss))
    return folder


@pytest.fixture
def run(folder: Path) -> dynoscope.Run:
    return dynoscope.open_run(folder)


def test_layers_has_every_column_and_row(run: dynoscope.Run) -> None:
    frame = run.layers()
    assert frame.columns.tolist() == TABLES["layers"].names()
    assert len(frame) == STEPS * len(run.layer_names)
    assert frame["layer"].tolist() == run.layer_names * STEPS
    assert frame["step"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (3, [3]),
        ((2, 5), [2, 3, 4]),
        (slice(9, None), [9, 10, 11]),
        (slice(None, 2), [0, 1]),
        (range(1, 9, 3), [1, 4, 7]),
        (np.int64(4), [4]),
        ((50, 60), []),
    ],
)
def test_steps_select(run: dynoscope.Run, steps: object, wanted: list[int]) -> None:
    frame = run.layers("weight_norm", "norm.bias", steps)  # type: ignore[arg-type]
    assert frame["step"].tolist() == wanted
    assert frame.columns.tolist() == ["step", "layer", "weight_norm"]


def test_layers_come_in_the_order_asked_for(run: dynoscope.Run) -> None:
    names = ["norm.bias", "*", "stem.0.weight"]
    frame = run.layers(["weight_norm", "lr"], names, (0, 2))
    assert frame["layer"].tolist() == names * 2


def test_the_whole_model_is_what_its_layers_add_up_to(run: dynoscope.Run) -> None:
    parts = run.layers(["weight_norm", "grad_l1", "weight_max", "numel"])
    whole = run.layers(["weight_norm", "grad_l1", "weight_max", "numel"], "*")
    by_step = parts.groupby("step")
    np.testing.assert_allclose(
        whole["weight_norm"],
        np.sqrt((parts["weight_norm"] ** 2).groupby(parts["step"]).sum()),
        rtol=1e-6,
    )
    np.testing.assert_allclose(whole["grad_l1"], by_step["grad_l1"].sum(), rtol=1e-6)
    np.testing.assert_allclose(whole["weight_max"], by_step["weight_max"].max())
    assert (whole["numel"] == 8 * 9 + 8 * 2 + 16 + 240 + 512 * 24 + 24 + 48 + 1).all()


def test_roll_ups_are_listed(run: dynoscope.Run) -> None:
    assert run.roll_ups[:3] == ["*", "stem.*", "stem.0.*"]
    for name in run.roll_ups:
        assert run.layers("weight_norm", name)["weight_norm"].notna().all()


def test_other_tables(run: dynoscope.Run) -> None:
    assert run.normalization()["layer"].unique().tolist() == [
        "stem.1.bias",
        "norm.bias",
    ]
    assert run.normalization("dead").columns.tolist() == ["step", "layer", "dead"]
    assert len(run.neurons("weight_norm_cv", "project.weight", 3)) == 1
    assert run.groups()["lr"].tolist() == [3e-3] * STEPS
    assert run.scalars("loss")["step"].tolist() == list(range(STEPS))
    costs = {"dynoscope/hook_seconds", "dynoscope/background_seconds"}
    assert set(run.scalars()["name"]) == {"loss", *costs}


def test_names_that_do_not_exist_get_the_choices(run: dynoscope.Run) -> None:
    with pytest.raises(
        DynoscopeError, match=r"no layer 'stem.7.weight'.*stem.0.weight"
    ):
        run.layers(layer="stem.7.weight")
    with pytest.raises(DynoscopeError, match=r"no layer 'stm.\*'.*stem"):
        run.layers(layer="stm.*")
    with pytest.raises(DynoscopeError, match=r"no column 'norm'.*weight_norm"):
        run.layers("norm")
    with pytest.raises(DynoscopeError, match=r"no table 'layer'.*layers"):
        run.table("layer")


def test_the_manifest_tells_what_was_watched(run: dynoscope.Run) -> None:
    manifest = run.manifest
    assert manifest["model"] == {"name": "MixedNet", "parameters": 12705}
    assert manifest["optimizer"]["kinds"] == ["adamw"]
    assert manifest["optimizer"]["hyperparameters"][0]["weight_decay"] == 0.1
    assert manifest["versions"]["torch"].startswith("2.")
    seconds = manifest["progress"].pop("seconds")
    assert seconds["device"] == 0 < seconds["hooks"] < seconds["elapsed"]
    assert 0 < seconds["background"]
    assert manifest["progress"] == {
        "step": STEPS - 1, "measured": STEPS, "skipped": 0, "lost": 0,
        "lost_rows": 0, "overflowed": 0, "counted": [[0, 0], [STEPS, STEPS]],
    }  # fmt: skip


def test_what_is_not_a_run_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="does not exist"):
        dynoscope.open_run(tmp_path / "nowhere")
    with pytest.raises(RunNotFoundError, match=r"no readable run\.json"):
        dynoscope.open_run(tmp_path)
    for text in ("not json", '{"some": "json"}', "[]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunNotFoundError, match="not a dynoscope manifest"):
            dynoscope.open_run(tmp_path)
    newer = json.loads((folder / "run.json").read_text()) | {"schema_version": 99}
    (tmp_path / "run.json").write_text(json.dumps(newer))
    with pytest.raises(RunNotFoundError, match="newer dynoscope"):
        dynoscope.open_run(tmp_path)


def test_find_runs_passes_over_what_is_not_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "good").symlink_to(folder)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    with pytest.warns(DynoscopeWarning, match="bad"):
        found = dynoscope.find_runs(tmp_path)
    assert [run.name for run in found] == ["good"]
    assert [run.path for run in dynoscope.find_runs(folder)] == [folder]


def test_damage_is_warned_of_by_name(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.json").write_text((folder / "run.json").read_text())
    for table in ("layers", "groups"):
        (copy / table).mkdir()
        for file in (folder / table).iterdir():
            (copy / table / file.name).write_bytes(file.read_bytes())
    (copy / "layers" / "part-00000001.parquet").write_bytes(b"garbage")
    with pytest.warns(DynoscopeWarning, match=r"layers/part-00000001\.parquet"):
        frame = dynoscope.open_run(copy).layers()
    assert len(frame) == STEPS * len(dynoscope.open_run(copy).layer_names)


def test_columns_that_are_newer_than_a_run_are_nan(
    folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (part,) = (copy / "layers").iterdir()
    rows = pq.read_table(part).drop_columns(["traj_weight_norm"])
    pq.write_table(rows, part)
    run = dynoscope.open_run(copy)
    assert np.isfinite(run.layers("weight_norm", "*")["weight_norm"]).all()
    journal = copy / "layers" / journal_name(2)
    with pa.ipc.new_stream(journal, rows.schema) as stream:
        stream.write_table(rows)
    frames = [run.layers(), run.layers(["step", "traj_weight_norm", "numel"])]
    frames.append(Cursor(copy, "layers").poll().to_pandas())
    for frame in frames:
        assert len(frame) == 2 * STEPS * len(run.layer_names)
        assert frame["traj_weight_norm"].isna().all()
        assert frame["numel"].notna().all()


def test_a_run_is_read_without_torch(folder: Path) -> None:
    code = (
        "import sys, dynoscope, dynoscope.diff, dynoscope.dashboard\n"
        f"run = dynoscope.open_run({str(folder)!r})\n"
        "assert len(run.layers()) and len(run.layers(layer='*'))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_status_follows_the_run(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        run = dynoscope.open_run(tmp_path / "run")
        assert run.status == "running"
        assert run.layers().empty
    assert run.status == "finished"


def test_a_writer_on_another_host_is_lost_when_silent(
    folder: Path, tmp_path: Path
) -> None:
    manifest = json.loads((folder / "run.json").read_text())
    manifest["status"] = "running"
    manifest["writer"]["host"] = "elsewhere"
    for heartbeat, status in ((pd.Timestamp.now().timestamp(), "running"), (0, "lost")):
        manifest["heartbeat"] = heartbeat
        (tmp_path / "run.json").write_text(json.dumps(manifest))
        assert dynoscope.open_run(tmp_path).status == status


def test_grokking_gap_of_logged_numbers(run: dynoscope.Run) -> None:
    losses = run.scalars("loss")
    threshold = float(losses["value"].iloc[4])
    expected = losses.loc[losses["value"] <= threshold, "step"].iloc[0]
    found = run.grokking_gap("loss", "loss", threshold, falling=True)
    assert found == (expected, expected, 0)
    with pytest.raises(
        DynoscopeError, match=r"logged as 'accuracy' .*there is: .*loss"
    ):
        run.grokking_gap("loss", "accuracy")


def test_what_was_never_measured_is_an_empty_frame(run: dynoscope.Run) -> None:
    for frame, table in (
        (run.full_gradients(), "full_gradients"),
        (run.invariance(), "invariance"),
        (run.activity(), "activity"),
    ):
        assert frame.columns.tolist() == TABLES[table].names()
        assert not len(frame)


def test_full_gradients_select(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        for _ in range(3):
            scope.measure_full_gradient(
                [torch.ones(2, 2)], lambda model, batch: model(batch).mean()
            )
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    frame = run.full_gradients("grad_l1", ["*", "weight"], (1, 3))
    assert frame.columns.tolist() == ["step", "layer", "grad_l1"]
    assert frame["layer"].tolist() == ["*", "weight"] * 2
    assert frame["step"].tolist() == [1, 1, 2, 2]
    assert frame["grad_l1"].tolist() == [3.0, 2.0] * 2
    assert run.full_gradients()["layer"].tolist() == ["weight", "bias", "*"] * 3
    with pytest.raises(DynoscopeError, match=r"no layer 'head'.*weight, bias"):
        run.full_gradients(layer="head")
