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

from dynoscope.optim import L1, Lion, LionK, NormGD, OrtSepNorm, Rotational, SepNorm
from tests.benchmarks.models import Gpt

RESULTS = Path(__file__).parent / "results" / "optimizers.csv"
STEPS = 4  # of an arm's turn


class Cost(NamedTuple):
    """Seconds of one step; CPU time counts every thread."""

    wall: float
    cpu: float


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
    "Rotational AdamW": Arm(lambda params: Rotational(AdamW(params)), bar=2.0),
}


def make_turn(arm: Arm) -> Callable[[], Cost]:
    """A function that takes some steps and returns what one of them cost."""
    torch.manual_seed(0)
    params = list(Gpt().parameters())
    optimizer = arm.make(params)

    def turn() -> Cost:
        for param in params:
            param.grad = torch.randn_like(param)
        start = Cost(time.perf_counter(), time.process_time())
        for _ in range(STEPS):
            optimizer.step()
        end = Cost(time.perf_counter(), time.process_time())
        return Cost(*((b - a) / STEPS for a, b in zip(start, end, strict=True)))

    return turn


def run_arms(rounds: int) -> dict[str, list[Cost]]:
    """Cost of one step, per arm and round."""
    turns = {name: make_turn(arm) for name, arm in ARMS.items()}
    for turn in turns.values():
        turn()  # warm up
    costs: dict[str, list[Cost]] = {name: [] for name in ARMS}
    order = list(ARMS)
    for _ in range(rounds):
        for name in order:
            costs[name].append(turns[name]())
        order = order[1:] + order[:1]
    return costs


def report(costs: dict[str, list[Cost]]) -> list[list[object]]:
    """Print a table; give its rows for the CSV file."""
    base = costs[BASE]
    step = statistics.median(cost.wall for cost in base)
    table = Table(title=f"{BASE}: a step takes {step * 1e3:.1f} ms")
    for column in ("optimizer", "wall ratio", "min to max", "CPU ratio", "at most"):
        table.add_column(column, justify="left" if column == "optimizer" else "right")
    rows: list[list[object]] = []
    for name, its_costs in costs.items():
        pairs, bar = list(zip(its_costs, base, strict=True)), ARMS[name].bar
        wall = [cost.wall / other.wall for cost, other in pairs]
        middle = statistics.median(wall)
        cpu = statistics.median(cost.cpu / other.cpu for cost, other in pairs)
        table.add_row(
            name,
            f"{middle:.3f}",
            f"{min(wall):.2f} to {max(wall):.2f}",
            f"{cpu:.3f}",
            f"{bar}{'' if middle <= bar else ', missed'}" if bar else "",
        )
        ratios = (middle, cpu, min(wall), max(wall))
        rows.append([name, *(f"{ratio:.4f}" for ratio in ratios), bar])
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
        writer.writerow(["optimizer", "wall", "cpu", "wall_min", "wall_max", "at_most"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
