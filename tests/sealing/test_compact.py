"""`dynoscope compact`: a run that nobody writes becomes few files."""

import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import dynoscope
from dynoscope.errors import DynoscopeError, DynoscopeWarning
from dynoscope.recorder import inbox, journal
from dynoscope.sealing import compact
from tests.dashboard.runs import WrittenRun
from tests.networks import OPTIMIZERS, MixedNet, train

STEPS = 40


def record(folder: Path) -> dynoscope.Run:
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(
        model, optimizer, run=folder, quiet=True, histograms=True
    ) as scope:
        train(model, optimizer, STEPS, lambda loss: scope.log(loss=loss))
    return dynoscope.open_run(folder)


def everything(run: dynoscope.Run) -> dict[str, pd.DataFrame]:
    return {
        "layers": run.layers(),
        "one layer": run.layers("weight_norm", "norm.bias", (5, 30)),
        "roll-ups": run.layers(layer=["*", "stem.*"]),
        "neurons": run.neurons(),
        "normalization": run.normalization(steps=range(0, 30, 3)),
        "histograms": run.histograms(),
        "groups": run.groups(),
        "scalars": run.scalars(),
        "loss": run.scalars("loss"),
        "findings": run.findings(),
    }


def test_all_is_read_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PART_ROWS", 20)
    monkeypatch.setattr(inbox, "BATCH_BYTES", 1)
    monkeypatch.setattr("dynoscope.session.Sealer", lambda folder: None)
    run = record(tmp_path / "run")
    before, last = everything(run), run.last_step
    files = len(list(run.folder.glob("*/*")))
    assert files > 12
    done = compact(run.folder)
    assert done.files[0] == files
    assert done.files[1] == len(list(run.folder.glob("*/*"))) < 12
    assert done.size[1] < done.size[0]
    assert not done.problems
    after = everything(dynoscope.open_run(run.folder))
    for name, frame in before.items():
        pd.testing.assert_frame_equal(after[name], frame, check_exact=True)
    assert run.last_step == last == STEPS - 1
    assert compact(run.folder).files == (done.files[1], done.files[1])


def test_a_run_is_sealed_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_ROWS", 20)
    monkeypatch.setattr(inbox, "BATCH_BYTES", 1)
    run = record(tmp_path / "run")
    assert [path.name[:7] for path in (run.folder / "layers").iterdir()] == ["segment"]
    assert not run.problems


def test_a_run_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tests.recorder.victim", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as victim:
        assert victim.stdout is not None
        while victim.stdout.readline() and not list(folder.glob("scalars/journal*")):
            pass
        victim.kill()
    run = dynoscope.open_run(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynoscopeWarning)
        before = everything(run)
    compact(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynoscopeWarning)
        after = everything(run)
    for name, frame in before.items():
        pd.testing.assert_frame_equal(after[name], frame, check_exact=True)
    assert {path.suffix for path in (folder / "neurons").iterdir()} == {".parquet"}


def test_a_run_of_an_older_version(tmp_path: Path) -> None:
    written = WrittenRun(tmp_path / "run")
    for _ in range(3):
        written.write(5)
        written.flush()
    written.manifest.content["schema_version"] = 1
    written.end()
    for table, column in (("layers", "traj_weight_norm"), ("groups", "own_step")):
        for part in (written.path / table).iterdir():
            pq.write_table(pq.read_table(part).drop_columns([column]), part)
    run = dynoscope.open_run(written.path)
    layers, groups = run.layers(), run.groups()
    assert layers["traj_weight_norm"].isna().all()
    compact(written.path)
    assert run.manifest["schema_version"] == 2
    pd.testing.assert_frame_equal(run.layers(), layers, check_exact=True)
    pd.testing.assert_frame_equal(run.groups(), groups, check_exact=True)


def test_a_run_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS["lion"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        with pytest.raises(DynoscopeError, match="still being written"):
            compact(tmp_path / "run")
    compact(tmp_path / "run")


def test_the_command(tmp_path: Path) -> None:
    run = record(tmp_path / "run")
    command = [sys.executable, "-m", "dynoscope", "compact", str(run.folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "files of" in said.stdout
    command[-1] = str(tmp_path / "nothing")
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "does not exist" in failed.stderr
