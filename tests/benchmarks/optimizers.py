"""What a step of each of our optimizers costs, against torch's AdamW.

Arms take turns, a few steps each, on a GPT's tensors with gradients drawn anew for
every turn, so that a noisy machine treats all alike; AdamW runs twice, and the second
against the first says how noisy it was.

    python -m tests.benchmarks.optimizers [--rounds 31] [--threads 2]
"""

import argparse
import csv
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from dynoscope.optim import L1, Lion, LionK, NormGD, OrtSepNorm, SepNorm
from tests.benchmarks.models import Gpt

RESULTS = Path(__file__).parent / "results" / "optimizers.csv"
STEPS = 4  # of an arm's turn


class Arm(NamedTuple):
    """An optimizer, and the share of AdamW's time that it may take at most."""

    make: Callable[[Iterable[Parameter]], Optimizer]
    bar: float | None = None


BASE = "AdamW foreach"
ARMS = {
    BASE: Arm(partial(AdamW, foreach=True)),
    f"{BASE} again": Arm(partial(AdamW, foreach=True)),
    "Lion": Arm(Lion, bar=0.8),
    "Lion foreach": Arm(partial(Lion, foreach=True)),
    "LionK L1": Arm(partial(LionK, k=L1())),
    "NormGD": Arm(NormGD, bar=1.1),
    "SepNorm": Arm(SepNorm, bar=1.1),
    "SepNorm row": Arm(partial(SepNorm, per="row")),
    "SepNorm group": Arm(partial(SepNorm, per="group")),
    "SepNorm foreach": Arm(partial(SepNorm, foreach=True)),
    "OrtSepNorm": Arm(OrtSepNorm, bar=1.1),
    "OrtSepNorm row": Arm(partial(OrtSepNorm, per="row")),
    "OrtSepNorm group": Arm(partial(OrtSepNorm, per="group")),
}


def make_turn(arm: Arm) -> Callable[[], float]:
    """A function that takes some steps and returns the seconds of one."""
    torch.manual_seed(0)
    params = list(Gpt().parameters())
    optimizer = arm.make(params)

    def turn() -> float:
        for param in params:
            param.grad = torch.randn_like(param)
        start = time.perf_counter()
        for _ in range(STEPS):
            optimizer.step()
        return (time.perf_counter() - start) / STEPS

    return turn


def run_arms(rounds: int) -> dict[str, list[float]]:
    """Seconds of one step, per arm and round."""
    turns = {name: make_turn(arm) for name, arm in ARMS.items()}
    for turn in turns.values():
        turn()  # warm up
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    order = list(ARMS)
    for _ in range(rounds):
        for name in order:
            seconds[name].append(turns[name]())
        order = order[1:] + order[:1]
    return seconds


def report(seconds: dict[str, list[float]]) -> list[list[object]]:
    """Print a table; give its rows for the CSV file."""
    base = seconds[BASE]
    table = Table(title=f"{BASE}: a step takes {statistics.median(base) * 1e3:.1f} ms")
    for column in ("optimizer", "ms", "ratio", "min to max", "at most"):
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    rows: list[list[object]] = []
    for name, times in seconds.items():
        ratios = [time / other for time, other in zip(times, base, strict=True)]
        middle, bar = statistics.median(ratios), ARMS[name].bar
        table.add_row(
            name,
            f"{statistics.median(times) * 1e3:.1f}",
            f"{middle:.3f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            f"{bar}{'' if middle <= bar else ', missed'}" if bar else "",
        )
        ratio_cells = (f"{x:.4f}" for x in (middle, min(ratios), max(ratios)))
        rows.append([name, *ratio_cells, bar])
    Console().print(table)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What an optimizer's step costs.")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; "
        f"medians of {options.rounds} interleaved rounds."
    )
    rows = report(run_arms(options.rounds))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["optimizer", "ratio", "ratio_min", "ratio_max", "at_most"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
