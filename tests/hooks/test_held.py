"""Runs that are opened and closed by calls."""

import argparse
import importlib.util
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import dynoscope
from dynoscope.errors import UnwatchableError
from dynoscope.hooks import held as held_module
from dynoscope.hooks.held import Held
from tests.hooks.snapshots import hooks_of


@pytest.mark.parametrize(
    ("module", "needs"),
    [
        ("transformers", "transformers"),
        ("lightning", "lightning.pytorch"),
        ("pytorch_lightning", "pytorch_lightning"),
        ("accelerate", "accelerate.tracking"),
    ],
)
def test_a_library_that_is_missing_is_named(
    module: str, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, needs, None)
    source = Path(held_module.__file__).with_name(f"{module}.py")
    spec = importlib.util.spec_from_file_location("fresh", source)
    assert spec is not None
    assert spec.loader is not None
    extra = module.removeprefix("pytorch_")
    with pytest.raises(ImportError, match=rf'pip install "dynoscope\[{extra}\]"'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


class Loop:
    """A model and an optimizer that take a step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 3)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self) -> None:
        self.model(torch.ones(2, 4)).square().sum().backward()
        self.optimizer.step()


def test_a_run_is_held_from_call_to_call(tmp_path: Path) -> None:
    loop, run = Loop(), tmp_path / "run"
    held = Held(run, {"config": argparse.Namespace(seed=3), "quiet": True})
    assert held.scope is None
    held.log({"loss": 1})  # to no run
    held.open(loop.model, loop.optimizer, {"seed": 2, "lr": 0.1})
    assert held.scope is not None
    loop.step()
    held.log(
        {"loss": np.float32(0.5), "t": torch.ones(1), "step": 7, "note": "x", "w": None}
    )
    held.close()
    held.close()
    assert held.scope is None
    opened = dynoscope.open_run(run)
    assert (opened.status, opened.config) == ("finished", {"seed": 3, "lr": 0.1})
    rows = opened.scalars(["loss", "t"])
    assert rows[["step", "value"]].to_numpy().tolist() == [[0, 0.5], [0, 1]]
    assert hooks_of(loop.optimizer) == 0


def test_what_opens_no_watch_leaves_nothing_open(tmp_path: Path) -> None:
    loop, stranger = Loop(), Loop()
    held = Held(tmp_path / "run", {})
    with pytest.raises(UnwatchableError):
        held.open(loop.model, stranger.optimizer, {})
    assert held.scope is None
    held.close()
    assert not (tmp_path / "run").exists()


def test_garbage_on_the_writers_thread_closes_the_run(tmp_path: Path) -> None:
    loop = Loop()
    box = [Held(tmp_path / "run", {"quiet": True})]
    box[0].open(loop.model, loop.optimizer, {})
    before = threading.enumerate()
    writer = threading.Thread(target=box.clear, name="dynoscope-run")
    writer.start()
    writer.join()
    for thread in set(threading.enumerate()) - set(before):
        thread.join()
    assert dynoscope.open_run(tmp_path / "run").status == "failed"
    assert hooks_of(loop.optimizer) == 0
