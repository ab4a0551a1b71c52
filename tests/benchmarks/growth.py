"""How the cost of watching grows: over a hundred thousand steps, and with the model.

Every step is measured. Over the steps of a tiny network: what the hooks take, what the
writer's threads take, and what a step takes with all of it, by tenths of the training.
With the parameters of a synthetic MLP: what the hooks take at a step.

    python -m tests.benchmarks.growth
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

import dynoscope
from dynoscope.measurement import FloatArray
from tests.benchmarks.figures import Figure, keep, middle, once
from tests.benchmarks.options import parse

STEPS: Final = 100_000
TENTHS: Final = 10
MILLIONS: Final = (1, 3, 10, 30, 100)
LAYERS: Final = 8
COUNT: Final = 15
"""Steps that are measured of each size."""


def tenths(steps: int, folder: Path) -> list[Figure]:
    """A long training of a tiny network, by tenths."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    x, y = torch.randn(32, 16), torch.randn(32, 4)
    walls, writers = [], []
    with dynoscope.watch(model, optimizer, run=folder, every=1, quiet=True) as scope:
        for _ in range(TENTHS):
            start, before = time.perf_counter(), _writer_seconds()
            for _ in range(steps // TENTHS):
                loss = (model(x) - y).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                scope.log(loss=loss)
            walls.append(time.perf_counter() - start)
            writers.append(_writer_seconds() - before)
    hooks = _hook_seconds(folder)
    each = steps // TENTHS
    cases = [f"steps {n * each:,} to {(n + 1) * each:,}" for n in range(TENTHS)]
    found = []
    for n, case in enumerate(cases):
        its = 1e6 * hooks[n * each : (n + 1) * each]
        found += [
            middle(case, "hooks per step", its.tolist(), "us"),
            once(case, "writer's CPU per step", 1e6 * writers[n] / each, "us"),
            once(case, "step, watched", 1e6 * walls[n] / each, "us"),
        ]
    return [*found, *(_last_by_first(found, f.what) for f in found[:3])]


def _last_by_first(found: Sequence[Figure], what: str) -> Figure:
    """The second half of a training against the first, its first tenth left out."""
    values = [each.value for each in found if each.what == what][1:]
    first, last = values[: len(values) // 2], values[-(len(values) // 2) :]
    ratio = statistics.fmean(last) / statistics.fmean(first)
    return once("second half by first", what, ratio)


def sizes(millions: Sequence[int], scratch: Path) -> list[Figure]:
    """MLPs of so many parameters, with gradients that are drawn once."""
    found = [_of_size(n, scratch / f"{n}M") for n in millions]
    x = np.log([float(each) for each in millions])
    slope = float(np.polyfit(x, np.log([each.value for each in found]), 1)[0])
    big = [each.value / n for each, n in zip(found, millions, strict=True)][-1]
    return [
        *found,
        once("slope, log by log", "hooks per step against parameters", slope),
        once(found[-1].case, "hooks per parameter", big / 1e3, "ns"),
    ]


def _of_size(million: int, folder: Path) -> Figure:
    torch.manual_seed(0)
    width = round((million * 1e6 / LAYERS) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with dynoscope.watch(model, optimizer, run=folder, every=1, quiet=True):
        for _ in range(COUNT):
            optimizer.step()
    hooks = 1e6 * _hook_seconds(folder)[2:]  # after the buffers have been made
    return middle(f"{million}M parameters", "hooks per step", hooks.tolist(), "us")


def _hook_seconds(folder: Path) -> FloatArray:
    run = dynoscope.open_run(folder)
    values: FloatArray = run.scalars("dynoscope/hook_seconds")["value"].to_numpy(float)
    return values


def _writer_seconds() -> float:
    """CPU time of dynoscope's threads that live."""
    total = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith("dynoscope-") and thread.ident is not None:
            total += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return total


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as scratch:
        found = [
            *sizes(MILLIONS[:3] if options.quick else MILLIONS, Path(scratch)),
            *tenths(STEPS // 10 if options.quick else STEPS, Path(scratch) / "run"),
        ]
    keep("growth", found, options)


if __name__ == "__main__":
    main()
