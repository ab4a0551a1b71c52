"""The writer's thread: how often it looks, and what it does without."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import dynoscope
from dynoscope.recorder import recorder
from dynoscope.recorder.recorder import Recorder
from tests.recorder.test_disk import SUBJECT

ROOT = Path(__file__).parents[2]

WITHOUT_PANDAS = """
import sys
import torch._dynamo  # asks for pandas itself
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


@pytest.mark.parametrize(("spent", "pause"), [(0.0, 100), (0.15, 150), (0.6, 200)])
def test_a_writer_with_much_to_do_looks_less_often(
    spent: float, pause: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drain(self: Recorder) -> None:
        end = time.thread_time() + spent
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(Recorder, "_drain", drain)
    monkeypatch.setattr(recorder, "INTERVAL", 100.0)
    monkeypatch.setattr(recorder, "LATEST", 200.0)
    monkeypatch.setattr(recorder, "SHARE", 1e-3)
    written = Recorder(tmp_path, SUBJECT, {}, strict=True)
    assert pause - 50 < written._look() <= pause + 50


def test_a_writer_that_takes_long_looks_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drain(self: Recorder) -> None:  # as one whose thread is rarely let on
        time.sleep(0.2)
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(Recorder, "_drain", drain)
    monkeypatch.setattr(recorder, "LATEST", 1.5)
    written = Recorder(tmp_path, SUBJECT, {}, strict=True)
    assert written._look() <= 1.5 - 3 * 0.2
