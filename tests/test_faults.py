"""Whatever breaks in dynoscope itself, at whatever stage, the training goes on."""

import io
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynoscope
from dynoscope import session
from dynoscope.errors import MeasurementError
from dynoscope.findings import Finding, Herald, Judge, text
from dynoscope.hooks import follower, watcher
from dynoscope.hooks.optimizers import Adapter
from dynoscope.hooks.watcher import Watcher
from dynoscope.metrics.packing import Packing
from dynoscope.metrics.sums import Kernel
from dynoscope.recorder import builder, recorder, rowmaker
from dynoscope.recorder.builder import TableBuilder
from dynoscope.recorder.disk import Disk
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.manifest import Manifest
from dynoscope.recorder.normalization import ChannelRows
from dynoscope.recorder.predictions import Predictor
from dynoscope.recorder.recorder import Recorder
from dynoscope.recorder.scalers import Scalers
from dynoscope.recorder.sensitivity import Sensitivity
from dynoscope.recorder.stream import Stream
from dynoscope.recorder.tables import PartTables
from dynoscope.recorder.trajectories import Trajectories
from tests.networks import OPTIMIZERS, MixedNet, train

STEPS = 6

Stage = tuple[Any, str]


def named(stages: list[Stage]) -> pytest.MarkDecorator:
    ids = [f"{getattr(place, '__name__', place)}.{name}" for place, name in stages]
    return pytest.mark.parametrize("stage", stages, ids=ids)


at_the_start = named(
    [
        (session, "find_watched"),
        (Kernel, "__init__"),
        (Watcher, "__init__"),
        (Judge, "__init__"),
        (Herald, "__init__"),
        (Recorder, "__init__"),
        (Manifest, "write"),
        (TableBuilder, "__init__"),
        (threading.Thread, "start"),
    ]
)

in_hooks: list[Stage] = [
    (Kernel, "before"),
    (Kernel, "after"),
    (Kernel, "ship"),
    (Adapter, "momenta"),
    (Adapter, "second_moments"),
    (follower, "capture"),
    (Recorder, "put"),
    (watcher, "notifying"),
    (watcher, "measurement_of"),
]

under_way = named(
    [
        *in_hooks,
        (Packing, "unpack"),
        (Scalers, "sift"),
        (TableBuilder, "build"),
        (PartTables, "_layers"),
        (PartTables, "_groups"),
        (PartTables, "_neurons"),
        (ChannelRows, "columns"),
        (builder, "histogram_columns"),
        (Predictor, "predict"),
        (Sensitivity, "columns"),
        (Trajectories, "predict"),
        (rowmaker, "scalar_columns"),
        (TableWriter, "write"),
        (TableWriter, "flush"),
        (Stream, "append"),
        (Disk, "add"),
        (Disk, "finish"),
        (Manifest, "beat"),
        (Judge, "feed"),
        (Judge, "finish"),
    ]
)


def break_it(
    monkeypatch: pytest.MonkeyPatch,
    stage: Stage,
    error: type[BaseException] = RuntimeError,
    first: int = 0,
    count: int = 1 << 30,
) -> list[int]:
    """Let some calls raise, counted from 0; gives a list that counts those."""
    place, name = stage
    original: Callable[..., Any] = getattr(place, name)
    calls, raised = [0], [0]

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if first < calls[0] <= first + count:
            raised[0] += 1
            raise error(f"injected into {name}")
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, broken)
    return raised


def fresh() -> tuple[MixedNet, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = MixedNet()
    return model, OPTIMIZERS["adamw"](model)


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    buffer = io.BytesIO()
    content = (model.state_dict(), optimizer.state_dict(), torch.get_rng_state())
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def undisturbed() -> bytes:
    model, optimizer = fresh()
    train(model, optimizer, STEPS)
    return everything(model, optimizer)


def watched(folder: Path, **options: Any) -> bytes:
    model, optimizer = fresh()
    threads = threading.active_count()
    with dynoscope.watch(
        model, optimizer, run=folder, histograms=True, **options
    ) as scope:
        train(model, optimizer, STEPS, lambda loss: scope.log(loss=loss))
    assert scope.step == STEPS
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert threading.active_count() == threads
    return everything(model, optimizer)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [m for m in map(str, caplog.messages) if "injected" in m]


def check_counts(run: dynoscope.Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is damaged
        recorded = run.layers()["step"].nunique()
    progress = run.manifest["progress"]
    assert progress["measured"] == recorded
    assert progress["measured"] + progress["skipped"] + progress["lost"] == STEPS


@at_the_start
def test_what_cannot_start_is_done_without(
    stage: Stage,
    undisturbed: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        break_it(patch, stage)
        assert watched(tmp_path / "run") == undisturbed
    (message,) = said(caplog)
    assert "training goes on unwatched" in message


@at_the_start
def test_what_cannot_start_is_raised_if_strict(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch, stage)
    with pytest.raises(RuntimeError, match="injected"):
        watched(tmp_path / "run", strict=True)


def test_without_a_watch_nothing_is_measured_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch, (Kernel, "__init__"))
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope:
        with pytest.raises(MeasurementError, match=r"could not start.*injected"):
            scope.measure_constraint()
        train(model, optimizer, 2)
        assert scope.step == 2


@under_way
def test_an_error_of_ours_is_said_once_and_changes_nothing(
    stage: Stage,
    undisturbed: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        first = 1 if stage == (Manifest, "beat") else 0
        raised = break_it(patch, stage, first=first)
        assert watched(tmp_path / "run") == undisturbed
    assert raised[0]
    messages = said(caplog)
    assert 1 <= len(messages) == len(set(messages))
    if stage != (Manifest, "beat"):  # no disk to say it on
        run = dynoscope.open_run(tmp_path / "run")
        assert run.status == "finished"
        assert [f"dynoscope: {p}" for p in run.problems if "injected" in p] == messages
        check_counts(run)


@under_way
def test_an_error_that_passes_costs_little(
    stage: Stage,
    undisturbed: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "INTERVAL", 0.001)
    monkeypatch.setattr(recorder, "LATEST", 0.001)
    with monkeypatch.context() as patch:
        raised = break_it(patch, stage, first=1, count=1)
        assert watched(tmp_path / "run") == undisturbed
    if raised[0]:
        run = dynoscope.open_run(tmp_path / "run")
        assert run.status == "finished"
        check_counts(run)
        if stage in in_hooks:
            assert run.manifest["progress"]["measured"] == STEPS - 1


@under_way
def test_our_errors_are_raised_if_strict(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = fresh()
    first = 1 if stage == (Manifest, "beat") else 0
    break_it(monkeypatch, stage, first=first)
    threads = threading.active_count()
    with (
        pytest.raises(RuntimeError, match=f"injected into {stage[1]}"),
        dynoscope.watch(
            model, optimizer, run=tmp_path / "run", histograms=True, strict=True
        ),
    ):
        train(model, optimizer, STEPS)
    assert not optimizer._optimizer_step_pre_hooks
    assert threading.active_count() == threads


def test_a_section_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch, (PartTables, "_neurons"))
    break_it(monkeypatch, (Trajectories, "predict"))
    break_it(monkeypatch, (ChannelRows, "columns"))
    watched(tmp_path / "run")
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers()
    assert rows["step"].nunique() == STEPS
    assert rows["traj_weight_norm"].isna().all()
    assert rows["pred_weight_norm"].notna().any()
    assert run.neurons().empty
    assert run.normalization().empty
    assert not run.histograms().empty
    assert run.findings()["rule"].notna().all()


def test_a_schedule_that_raises_measures_nothing(
    undisturbed: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def due(step: int) -> bool:
        raise RuntimeError("injected into a schedule")

    assert watched(tmp_path / "run", every=due) == undisturbed
    assert len(said(caplog)) == 1


def test_findings_that_cannot_be_said_are_recorded(
    undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loud(evidence: Any) -> Any:
        yield Finding(severity="error", step=0, layer="*", message="It is loud.")

    raised = break_it(monkeypatch, (text, "print_live"))
    assert watched(tmp_path / "run", rules={"loud": loud}) == undisturbed
    assert raised[0] == 1
    run = dynoscope.open_run(tmp_path / "run")
    assert run.findings()["rule"].tolist() == ["loud"]
    monkeypatch.undo()
    break_it(monkeypatch, (text, "print_live"))
    with pytest.raises(RuntimeError, match="injected"):
        watched(tmp_path / "strict", rules={"loud": loud}, strict=True)


@pytest.mark.parametrize("stage", [(Kernel, "before"), (Kernel, "after")])
def test_ctrl_c_inside_a_hook_is_one_step_or_none(
    stage: Stage, undisturbed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that goes on after it has lost nothing but the measurement."""
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        train(model, optimizer, 2)
        before = [p.detach().clone() for p in model.parameters()]
        with monkeypatch.context() as patch:
            break_it(patch, stage, KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                train(model, optimizer, 1)
        now = list(model.parameters())
        moved = any(not torch.equal(*pair) for pair in zip(before, now, strict=True))
        assert moved == (stage[1] == "after")
        assert scope.step == 2 + moved
        train(model, optimizer, 2)
        assert scope.step == 4 + moved
    steps = dynoscope.open_run(tmp_path / "run").layers()["step"].unique().tolist()
    assert steps == ([0, 1, 3, 4] if moved else [0, 1, 2, 3])


def test_a_close_that_hangs_is_left_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    finish = Disk.finish

    def hanging(self: Disk) -> None:
        assert gate.wait(60)
        finish(self)

    monkeypatch.setattr(Disk, "finish", hanging)
    monkeypatch.setattr(recorder, "LONGEST_CLOSE", 0.05)
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope:
        train(model, optimizer, 2)
    assert "still being written" in caplog.text
    gate.set()
    scope._recorder._thread.join()  # type: ignore[union-attr]
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.last_step == 1
