"""`watch` with a URI: nothing is lost, nothing waits, and errors come at the start."""

import logging
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import dynoscope
from dynoscope import Remote
from dynoscope.dashboard.state import RunState
from dynoscope.errors import DynoscopeWarning, RunExistsError, StoreError
from dynoscope.remote.places import spools_of
from dynoscope.remote.push import push
from dynoscope.remote.store import Store
from tests.dashboard.runs import columns_of
from tests.networks import OPTIMIZERS, MixedNet, train
from tests.remote.stores import Proxy, free_port

Uri = Callable[..., str]
ROOT = Path(__file__).parents[2]


def fresh() -> tuple[MixedNet, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = MixedNet()
    return model, OPTIMIZERS["adamw"](model)


def record(
    run: str | Path | Remote,
    steps: int = 20,
    each: Callable[[int], None] = lambda step: None,
    *,
    resume: bool = False,
    start_step: int | None = None,
    overwrite: bool = False,
) -> tuple[list[float], list[torch.Tensor]]:
    """Train; give the losses and the weights."""
    model, optimizer = fresh()
    losses: list[float] = []

    def done(loss: torch.Tensor) -> None:
        losses.append(loss.item())
        scope.log(loss=loss)
        each(len(losses))

    with dynoscope.watch(
        model,
        optimizer,
        run=run,
        quiet=True,
        resume=resume,
        start_step=start_step,
        overwrite=overwrite,
    ) as scope:
        train(model, optimizer, steps, done)
    return losses, [p.detach().clone() for p in model.parameters()]


def our_threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("dynoscope")]


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not happened():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)


def measured(run: dynoscope.Run) -> pd.DataFrame:
    return run.layers().drop(columns="wall_time")


def test_a_remote_run_equals_a_local_one(tmp_path: Path, s3: Uri, proxy: Proxy) -> None:
    record(tmp_path / "run")
    local = dynoscope.open_run(tmp_path / "run")
    proxy.be("slow")
    record(Remote(s3("run"), interval=0.5))
    remote = dynoscope.open_run(s3("run"))
    assert remote.status == "finished"
    pd.testing.assert_frame_equal(measured(remote), measured(local))
    assert remote.scalars("loss")["value"].equals(local.scalars("loss")["value"])
    assert remote.manifest["name"] == "run"
    assert remote.manifest["upload"]["uri"] == s3("run")
    assert not remote.problems
    assert spools_of(s3("run")) == []
    assert our_threads() == []
    names = Store(s3("run")).list()
    assert not [name for name in names if "journal" in name]


def test_a_live_run_is_followed(s3: Uri) -> None:
    uri = s3("run")
    states: list[RunState] = []

    def has_arrived(step: int) -> bool:
        states[:] = states or [RunState(dynoscope.open_run(uri))]
        states[0].refresh()
        return len(columns_of(states[0], states[0].layer_names[0])[0]) == step

    def look(step: int) -> None:
        if step % 5 == 0:
            wait_for(lambda: has_arrived(step))

    record(Remote(uri, interval=0.05), 15, look)
    assert dynoscope.open_run(uri).status == "finished"
    (state,) = states
    state.refresh()
    frame = state.run.layers("weight_norm")
    for layer in state.layer_names:
        steps, columns = columns_of(state, layer)
        assert steps.tolist() == list(range(15))
        norms = frame[frame["layer"] == layer]["weight_norm"]
        assert columns["weight_norm"].tolist() == norms.tolist()


def test_a_store_that_is_down_slows_nothing(
    tmp_path: Path, s3: Uri, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    bare = record(tmp_path / "run")
    remote = Remote(s3("run"), interval=0.02, patience=30.0)
    asked: list[int] = []

    def fail(step: int) -> None:
        if step == 3:
            proxy.be("busy")
            asked.append(len(proxy.requests))
        if step == 6:
            wait_for(lambda: "uploading failed" in caplog.text)
        if step == 12:
            proxy.be("down")
        if step == 20:  # all steps were taken, and nothing has arrived meanwhile
            asked.append(len(proxy.requests))
            proxy.be("well")

    watched = record(remote, 20, fail)
    assert watched[0] == bare[0]
    assert all(map(torch.equal, watched[1], bare[1]))
    run = dynoscope.open_run(s3("run"))
    assert run.status == "finished"
    local = dynoscope.open_run(tmp_path / "run")
    pd.testing.assert_frame_equal(measured(run), measured(local))
    assert asked[0] == asked[1]
    assert any("uploading failed" in problem for problem in run.problems)
    assert spools_of(s3("run")) == []


def test_what_could_not_be_uploaded_is_kept_and_can_be_pushed(
    tmp_path: Path, s3: Uri, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    record(tmp_path / "run")
    remote = Remote(s3("run"), interval=0.05, patience=3.0)
    with caplog.at_level(logging.WARNING, "dynoscope"):
        record(remote, 20, lambda step: proxy.be("denied" if step > 3 else "well"))
    (spool,) = spools_of(s3("run"))
    said = caplog.messages[-1]
    assert f"dynoscope push {spool} '{s3('run')}'" in said
    assert "no permission" in said
    kept = dynoscope.open_run(spool)
    pd.testing.assert_frame_equal(
        measured(kept), measured(dynoscope.open_run(tmp_path / "run"))
    )
    assert said.removeprefix("dynoscope: ") in kept.problems
    assert kept.manifest["upload"]["failures"] > 0
    assert kept.manifest["upload"]["backlog"] > 0
    proxy.be("well")
    with caplog.at_level(logging.WARNING, "dynoscope"), pytest.raises(RunExistsError):
        record(remote)  # says where the rest is
    assert f"it is in {spool}" in caplog.messages[-1]
    push(spool, s3("run"))
    run = dynoscope.open_run(s3("run"))
    assert run.status == "finished"
    assert run.manifest["upload"]["backlog"] == 0
    pd.testing.assert_frame_equal(
        measured(run), measured(dynoscope.open_run(tmp_path / "run"))
    )
    assert spools_of(s3("run")) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("bucket", "no such bucket; create it"),
        ("denied", "no permission; check the credentials"),
        ("read-only", "no permission; check the credentials"),
        ("port", "unreachable; check the network"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_before_training(
    wrong: str, why: str, s3: Uri, proxy: Proxy
) -> None:
    uri = s3("run", bucket="nowhere") if wrong == "bucket" else s3("run")
    if wrong in ("denied", "read-only"):
        proxy.be(wrong)
    if wrong == "port":
        uri = uri.replace(f":{proxy.port}", f":{free_port()}")
    with pytest.raises(StoreError, match=why) as caught:
        record(uri, 1, lambda step: pytest.fail("it trains"))
    assert str(caught.value).startswith(uri)
    assert spools_of(uri) == []
    assert our_threads() == []


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    uri = (tmp_path / "store").as_uri()
    record(uri, 3)
    with pytest.raises(
        RunExistsError, match=r"file://.* holds a run already"
    ) as caught:
        record(uri, 3)
    assert "(finished)" in str(caught.value)
    record(uri, 2, resume=True)
    run = dynoscope.open_run(uri)
    assert run.scalars("loss")["step"].tolist() == [0, 1, 2, 3, 4]
    (path,) = (tmp_path / "store" / "groups").iterdir()
    assert path.name == "segment-00000000-00000001.parquet"
    record(uri, 2, overwrite=True)
    assert run.scalars("loss")["step"].tolist() == [0, 1]
    assert len(list((tmp_path / "store" / "groups").iterdir())) == 1
    assert spools_of(uri) == []


def test_a_run_goes_on_from_an_older_checkpoint(tmp_path: Path) -> None:
    uri = (tmp_path / "store").as_uri()
    record(uri, 6)
    before = measured(dynoscope.open_run(uri))
    follower = dynoscope.open_run(uri).cursor("layers")
    assert len(follower.poll()) == len(before)
    record(uri, 2, resume=True, start_step=4)
    run = dynoscope.open_run(uri)
    assert run.scalars("loss")["step"].tolist() == [0, 1, 2, 3, 4, 5]
    kept = before["step"] < 4
    pd.testing.assert_frame_equal(
        measured(run)[: kept.sum()], before[kept], check_exact=True
    )
    (branch,) = run.branches
    assert branch.path == f"{uri}/branches/001"
    assert branch.status == "superseded"
    assert measured(branch).equals(before[~kept].reset_index(drop=True))
    assert not len(follower.poll())  # it has given out what is superseded
    assert len(run.cursor("layers").poll()) == len(before)
    assert not list((tmp_path / "store").rglob("cut.json"))
    record(uri, 2, overwrite=True)
    assert dynoscope.open_run(uri).branches == []
    assert not list((tmp_path / "store").rglob("branches/*/*/*"))


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunExistsError, match="not a dynoscope run"):
            record(tmp_path.as_uri(), 1, overwrite=overwrite)
    assert [path.name for path in tmp_path.rglob("*")] == ["layers", "notes.txt"]


def test_a_run_that_is_being_written_is_not_disturbed(tmp_path: Path) -> None:
    uri = (tmp_path / "store").as_uri()

    def again(step: int) -> None:
        for resume in (True, False):
            with pytest.raises(RunExistsError, match="is being written"):
                record(uri, 1, resume=resume, overwrite=not resume)

    record(uri, 1, again)
    assert dynoscope.open_run(uri).status == "finished"


def test_a_block_that_is_never_left_ends_with_the_program(s3: Uri) -> None:
    command = [sys.executable, "-m", "tests.remote.leaver", s3("run")]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    run = dynoscope.open_run(s3("run"))
    assert run.status == "finished"
    assert run.scalars("dynoscope/hook_seconds")["step"].tolist() == list(range(6))
    assert spools_of(s3("run")) == []


def test_a_killed_training_loses_an_interval_there_and_nothing_here(s3: Uri) -> None:
    interval = 0.3
    command = [sys.executable, "-m", "tests.remote.victim", s3("run"), f"{interval}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as victim:
        assert victim.stdout is not None
        lines = [victim.stdout.readline() for _ in range(30)]
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            lines.append(victim.stdout.readline())
        victim.kill()
        lines += victim.stdout.readlines()
    done = {
        int(step): float(when)
        for step, when in (line.split() for line in lines if line.endswith("\n"))
    }
    run = dynoscope.open_run(s3("run"))
    assert run.status == "lost"
    (spool,) = spools_of(s3("run"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynoscopeWarning)  # a journal may be cut
        there, here = run.layers("lr"), dynoscope.open_run(spool).layers("lr")
    for frame in (there, here):
        assert not frame.duplicated(["step", "layer"]).any()
        assert frame["step"].unique().tolist() == list(range(frame["step"].max() + 1))
    killed = max(done.values())
    assert killed - done[here["step"].max()] < 1.0
    # An upload's own time counts, and twice: rows may come just after it has begun.
    assert killed - done[there["step"].max()] < 1.0 + interval + 5.0
    # A later run goes on from all of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DynoscopeWarning)
        record(s3("run"), 2, resume=True)
        whole = dynoscope.open_run(s3("run")).layers("lr")
    assert whole["step"].unique().tolist() == list(range(here["step"].max() + 3))
    assert spools_of(s3("run")) == []
