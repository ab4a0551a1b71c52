"""The writer's thread: how often it looks, and what it does without."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import dynoscope
from dynoscope.recorder import recorder
from dynoscope.recorder.recorder import Recorder
from tests.networks import OPTIMIZERS, MixedNet, train

ROOT = Path(__file__).parents[2]

WITHOUT_PANDAS = """
import sys
import torch
import dynoscope

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ImportError("there is no pandas")

assert "pandas" not in sys.modules
sys.meta_path.insert(0, Refuse())
model = torch.nn.Sequential(
    torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2)
)
optimizer = torch.optim.AdamW(model.parameters())
options = {"strict": True, "histograms": True}
with dynoscope.watch(model, optimizer, run=sys.argv[1], **options) as scope:
    for _ in range(40):
        loss = model(torch.randn(16, 8)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scope.log(loss=loss)
dynoscope.open_run(sys.argv[1])
"""


def test_a_run_is_written_without_pandas(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", WITHOUT_PANDAS, str(run)]
    subprocess.run(command, check=True, cwd=ROOT)
    assert len(dynoscope.open_run(run).layers("weight_norm", "0.weight")) == 40


def looks(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """When the writer looks, while each look takes so much of the processor."""
    found = []

    def drain(self: Recorder) -> None:
        found.append(time.monotonic())
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(Recorder, "_drain", drain)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=tmp_path / f"run{seconds}"):
        train(model, optimizer, 1)
        time.sleep(1.5)
    return found


def test_a_writer_with_much_to_do_looks_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "INTERVAL", 0.05)
    often = looks(0.0, tmp_path, monkeypatch)
    seldom = looks(0.01, tmp_path, monkeypatch)
    assert len(often) > len(seldom)
    gaps = [b - a for a, b in zip(seldom[:-2], seldom[1:-1], strict=True)]
    assert all(gap >= recorder.STRETCH * recorder.INTERVAL for gap in gaps[1:])
