"""Trainings that fork: the run is the parent's, whatever the children do."""

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dynoscope


def fresh() -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Any = None) -> None:
    model(torch.ones(2, 4) if x is None else x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def plain_fork(folder: Path) -> None:
    """Children that step, log, measure, and leave the block in several ways."""
    model, optimizer = fresh()
    children = []
    with dynoscope.watch(model, optimizer, run=folder, on_finding=say) as scope:
        step(model, optimizer)
        for way in ("exit", "raise", "through", "watch"):
            child = os.fork()
            if not child:
                for _ in range(3):
                    step(model, optimizer)
                    scope.log(loss=float("nan"))
                scope.measure_full_gradient(
                    [torch.ones(2, 4)], lambda m, x: m(x).square().sum()
                )
                if way == "exit":
                    sys.exit(0)
                if way == "raise":
                    os.close(2)  # the traceback is expected
                    raise RuntimeError("a child's own")
                if way == "watch":
                    with dynoscope.watch(model, optimizer, run=f"{folder}-child"):
                        step(model, optimizer)
                    os._exit(0)
                break
            children.append(os.waitpid(child, 0)[1])
        else:
            step(model, optimizer)
    if not child:
        os._exit(0)
    assert [os.waitstatus_to_exitcode(status) for status in children] == [0, 1, 0, 0]


def say(finding: Any) -> None:
    print("finding", finding.rule, flush=True)


def with_loader(folder: Path) -> None:
    """Workers of a DataLoader, and a Process that trains."""
    model, optimizer = fresh()
    loader = DataLoader(
        TensorDataset(torch.ones(8, 4)),
        batch_size=2,
        num_workers=2,
        multiprocessing_context="fork",
    )
    with dynoscope.watch(model, optimizer, run=folder) as scope:
        for (x,) in loader:
            step(model, optimizer, x)
            scope.log(loss=1.0)
        process = multiprocessing.get_context("fork").Process(
            target=step, args=(model, optimizer)
        )
        process.start()
        process.join()
        assert process.exitcode == 0
        step(model, optimizer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    plain_fork(Path(sys.argv[1]) / "plain")
    with_loader(Path(sys.argv[1]) / "loader")
