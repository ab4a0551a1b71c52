"""Blocks that are left oddly, or never: the next watch works, no hooks pile up."""

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynoscope
from dynoscope.errors import UnwatchableError
from dynoscope.recorder.disk import Disk


def fresh() -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def interrupted(work: Callable[..., None], *arguments: Any) -> None:
    work(*arguments)
    raise KeyboardInterrupt


def hooks_of(optimizer: torch.optim.Optimizer) -> int:
    pre, post = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
    )
    return len(pre) + len(post)


def test_a_watch_that_nobody_holds_ends_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, optimizer = fresh()
    threads = threading.active_count()
    scope = dynoscope.watch(model, optimizer, run=tmp_path / "run").__enter__()
    gc.collect()
    assert hooks_of(optimizer) == 0
    assert threading.active_count() == threads
    assert "nothing held on to it" in caplog.text
    step(model, optimizer)
    scope.log(loss=1.0)
    assert "after the block" in caplog.text
    assert dynoscope.open_run(tmp_path / "run").status == "finished"


def test_a_cell_can_be_run_again_and_again(tmp_path: Path) -> None:
    """A loop in a generator that is left half-way, as an interrupted cell leaves it."""
    model, optimizer = fresh()
    threads = threading.active_count()
    inside = set()

    def training(run: Path) -> Iterator[int]:
        with dynoscope.watch(model, optimizer, run=run) as scope:
            while True:
                step(model, optimizer)
                yield scope.step

    for cell in range(4):
        steps = training(tmp_path / f"run{cell}")
        assert [next(steps), next(steps)] == [1, 2]
        assert hooks_of(optimizer) == 2
        inside.add(threading.active_count() - threads)
        holder: list[Any] = [steps]
        holder.append(holder)  # only the garbage collector finds it
        del steps, holder
    assert len(inside) == 1
    model, optimizer = fresh()
    gc.collect()
    assert threading.active_count() == threads
    for cell in range(4):
        run = dynoscope.open_run(tmp_path / f"run{cell}")
        assert run.status == "finished"
        assert run.last_step == 1


def test_a_watch_that_somebody_holds_is_respected(tmp_path: Path) -> None:
    model, optimizer = fresh()
    first = dynoscope.watch(model, optimizer, run=tmp_path / "a")
    first.__enter__()
    with (
        pytest.raises(UnwatchableError, match="watched already"),
        dynoscope.watch(model, optimizer, run=tmp_path / "b"),
    ):
        pass
    step(model, optimizer)
    first.__exit__(None, None, None)
    assert dynoscope.open_run(tmp_path / "a").last_step == 0


def test_an_interrupted_cell_leaves_nothing(tmp_path: Path) -> None:
    model, optimizer = fresh()
    for cell in range(3):
        with (
            pytest.raises(KeyboardInterrupt),
            dynoscope.watch(model, optimizer, run=tmp_path / f"run{cell}"),
        ):
            interrupted(step, model, optimizer)
        assert hooks_of(optimizer) == 0
        run = dynoscope.open_run(tmp_path / f"run{cell}")
        assert run.status == "failed"
        assert run.last_step == 0


def test_a_second_ctrl_c_ends_the_waiting_not_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, finish = threading.Event(), Disk.finish
    main = threading.get_ident()

    def slow(self: Disk) -> None:
        signal.pthread_kill(main, signal.SIGINT)
        assert gate.wait(60)
        finish(self)

    monkeypatch.setattr(Disk, "finish", slow)
    model, optimizer = fresh()
    with (
        pytest.raises(KeyboardInterrupt),
        dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope,
    ):
        step(model, optimizer)
    assert hooks_of(optimizer) == 0
    assert dynoscope.open_run(tmp_path / "run").status == "running"
    gate.set()
    scope._recorder.close(None, 0)  # type: ignore[union-attr]  # as the exit does
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "finished"
    assert run.last_step == 0


def test_a_closed_output_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = fresh()
    with (tmp_path / "out").open("w") as output:
        pass
    monkeypatch.setattr("sys.stdout", output)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run"):
        step(model, optimizer)
    assert dynoscope.open_run(tmp_path / "run").status == "finished"


def test_a_scope_of_before_does_not_touch_the_run_that_goes_on(tmp_path: Path) -> None:
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run") as before:
        step(model, optimizer)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", resume=True):
        step(model, optimizer)
        before.log(loss=1.0)
        assert dynoscope.open_run(tmp_path / "run").status == "running"
        step(model, optimizer)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.last_step == 2
    assert len(run.manifest["resumed"]) == 1
