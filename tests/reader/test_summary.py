"""A run in one row, against its tables."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dynoscope
from dynoscope.errors import DynoscopeWarning
from dynoscope.sealing import compact
from tests.dashboard.runs import WrittenRun
from tests.findings.trainings import batches, normalized

STEPS, DYING = 30, 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dynoscope.Run:
    """A real training, in which channels die, and numbers are logged now and then."""
    folder = tmp_path_factory.mktemp("summary") / "run"
    model = normalized(8)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": others, "weight_decay": 0.0, "lr": 0.5},
        {"params": weights, "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9))
    config = {"batch": 32, "data": {"name": "cube", "sizes": [1, 2]}, "note": None}
    with dynoscope.watch(
        model, optimizer, run=folder, every=1, quiet=True, config=config
    ) as scope:
        for step, (points, labels) in enumerate(batches(STEPS)):
            if step == 10:
                with torch.no_grad():
                    bias: Tensor = model[1].bias  # type: ignore[index]
                    bias[:DYING] = -100.0
            loss = torch.nn.functional.cross_entropy(model(points), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scope.log(loss=loss)
            if step % 7 == 0:
                scope.log(score=math.nan if step == 14 else 1.0 - step)
    return dynoscope.open_run(folder)


def test_what_it_was_and_how_it_ended(run: dynoscope.Run) -> None:
    summary = run.summary()
    assert (summary.name, summary.standing.status) == ("run", "finished")
    assert summary.standing.step == STEPS - 1
    assert summary.standing.measured == STEPS
    assert summary.standing.layers == len(run.layer_names)
    numels = [layer["numel"] for layer in run.manifest["layers"]]
    assert summary.standing.parameters == sum(numels)
    assert summary.settings == pytest.approx(
        {
            "lr": 0.01, "weight_decay": 0.1, "momentum": math.nan,
            "beta1": 0.8, "beta2": 0.9,
        },
        nan_ok=True, rel=0, abs=0,
    )  # fmt: skip
    assert summary.config == {
        "batch": 32, "data.name": "cube", "data.sizes": "[1, 2]", "note": None,
    }  # fmt: skip


def test_what_was_logged(run: dynoscope.Run) -> None:
    scalars = run.summary().scalars
    assert list(scalars) == ["loss", "score"]
    losses = run.scalars("loss")["value"]
    assert scalars["loss"] == (losses.iloc[-1], losses.min(), losses.max())
    assert scalars["score"] == (-27.0, -27.0, 1.0)


def test_rotation_is_that_of_the_whole_model(run: dynoscope.Run) -> None:
    summary = run.summary()
    whole = run.layers("angular_update", "*")["angular_update"]
    assert summary.angular_update == pytest.approx(whole.mean(), rel=1e-12)
    assert summary.angular_update_last == whole.iloc[-1]
    shares = []
    rows = run.layers(["angular_update", "pred_angular_update"])
    for _, of_layer in rows.groupby("layer"):
        known = of_layer[np.isfinite(of_layer["pred_angular_update"])]
        known = known[known["pred_angular_update"] > 0]
        if len(known):
            means = (
                known[["angular_update", "pred_angular_update"]].astype(float).mean()
            )
            shares.append(means["angular_update"] / means["pred_angular_update"])
    assert 0 < len(shares) < len(run.layer_names)
    assert summary.rotation_share == pytest.approx(np.median(shares), rel=1e-9)


def test_channels_findings_and_cost(run: dynoscope.Run) -> None:
    summary = run.summary()
    ends = run.normalization(steps=STEPS - 1)
    assert (summary.channels, summary.dead_channels) == (16, ends["dead"].sum())
    assert summary.dead_channels >= DYING
    found = run.findings()["severity"].value_counts().to_dict()
    assert {k: v for k, v in summary.findings.items() if v} == found
    assert found
    seconds = run.manifest["progress"]["seconds"]
    spent = seconds["hooks"] + seconds["background"]  # on the CPU
    assert 0 < summary.cost_per_step == pytest.approx(spent / STEPS)
    assert 0 < summary.cost_share == pytest.approx(spent / seconds["elapsed"])


def test_the_row_has_it_all(run: dynoscope.Run) -> None:
    summary = run.summary()
    row = summary.row()
    assert row["last.loss"] == summary.scalars["loss"].last
    assert row["config.data.name"] == "cube"
    assert (row["errors"], row["notes"]) == (
        summary.findings["error"], summary.findings["note"],
    )  # fmt: skip
    assert row["problems"] == ""
    assert {"optimizer", "lr", "angular_update", "cost_share"} <= set(row)


def test_sealing_changes_nothing(run: dynoscope.Run, tmp_path: Path) -> None:
    written = WrittenRun(tmp_path / "run")
    for _ in range(3):
        written.write(20)
        written.flush()
    written.end()
    opened = dynoscope.open_run(written.path)
    before = repr(opened.summary())
    compact(written.path)
    assert repr(opened.summary()) == before


def test_of_a_run_that_has_no_step_yet(tmp_path: Path) -> None:
    written = WrittenRun(tmp_path / "run")
    summary = dynoscope.open_run(written.path).summary()
    assert summary.standing.status == "running"
    assert summary.standing.step is None
    assert math.isnan(summary.angular_update)
    assert math.isnan(summary.cost_share)
    assert summary.scalars == {}
    written.close()


def test_damage_is_named_and_heard(tmp_path: Path) -> None:
    written = WrittenRun(tmp_path / "run")
    written.write(5)
    written.end()
    (part,) = (written.path / "layers").iterdir()
    part.write_bytes(b"not Parquet")
    run = dynoscope.open_run(written.path)
    with pytest.warns(DynoscopeWarning, match="layers/part-00000000"):
        run.summary()
    run.heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.summary()
        run.table("layers")
    (problem,) = run.heard
    assert problem.startswith("layers/part-00000000")
