"""What a run's strip says of steps that are not in it."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

import dynoscope
from dynoscope.dashboard.header import run_header
from dynoscope.dashboard.store import Store
from dynoscope.dashboard.theme import scheme


def facts(folder: Path) -> dict[str, str]:
    """Names and values of a run's strip."""
    store = Store(folder.parent)
    store.scan()
    store.refresh(["run"])
    entry = store.entry("run")
    assert entry is not None
    (strip,) = run_header(store.states(["run"]), {"run": entry}, scheme("light"))
    shown: Any = strip.children[1].children
    return {fact.children[0].children: fact.children[1].children for fact in shown}


def train(folder: Path, overflows: int) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = GradScaler("cpu", 8.0)
    with dynoscope.watch(model, optimizer, run=folder, strict=True):
        for index in range(4 + overflows):
            optimizer.zero_grad()
            factor = torch.inf if 0 < index <= overflows else 1.0
            scaler.scale(model(torch.ones(2, 3)).sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()


def test_overflows_are_said_beside_what_is_lost(tmp_path: Path) -> None:
    train(tmp_path / "a" / "run", 0)
    train(tmp_path / "b" / "run", 2)
    assert facts(tmp_path / "a" / "run")["lost or skipped"] == "none"
    said = facts(tmp_path / "b" / "run")
    assert said["lost or skipped"] == "0 lost, 0 skipped, 2 overflowed"
    assert said["steps measured"] == "4"


def test_its_own_cost_is_what_the_run_says(tmp_path: Path) -> None:
    train(tmp_path / "run", 0)
    cost = dynoscope.open_run(tmp_path / "run").cost
    assert cost.share is not None
    assert facts(tmp_path / "run")["dynoscope's own cost"] == (
        f"{cost.share:.1%} of the time (budget 1.0%), "
        f"{cost.seconds / 4 * 1e3:.2f} ms a measurement"
    )
