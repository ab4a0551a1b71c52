"""What a step of each of our optimizers costs, against torch's AdamW.

Arms take turns, a few steps each, on a GPT's tensors with gradients drawn anew for
every turn, so that a noisy machine treats all alike; AdamW runs twice, and the second
against the first says how noisy it was.

    python -m tests.benchmarks.optimizers [--rounds 31] [--threads 2]
"""

import argparse
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from dynoscope.optim import L1, Lion, LionK, NormGD, OrtSepNorm, Rotational, SepNorm
from tests.benchmarks.figures import Figure, keep, middle
from tests.benchmarks.models import Gpt
from tests.benchmarks.options import parse

STEPS = 4  # of an arm's turn


class Cost(NamedTuple):
    """Seconds of one step; CPU time counts every thread."""

    wall: float
    cpu: float


Make = Callable[[Iterable[Parameter]], Optimizer]

BASE = "AdamW foreach"
ARMS: Mapping[str, Make] = {
    BASE: partial(AdamW, foreach=True),
    f"{BASE} again": partial(AdamW, foreach=True),
    "Lion": Lion,
    "Lion foreach": partial(Lion, foreach=True),
    "LionK L1": partial(LionK, k=L1()),
    "NormGD": NormGD,
    "SepNorm": SepNorm,
    "SepNorm row": partial(SepNorm, per="row"),
    "SepNorm group": partial(SepNorm, per="group"),
    "SepNorm foreach": partial(SepNorm, foreach=True),
    "OrtSepNorm": OrtSepNorm,
    "OrtSepNorm row": partial(OrtSepNorm, per="row"),
    "OrtSepNorm group": partial(OrtSepNorm, per="group"),
    "Rotational AdamW": lambda params: Rotational(AdamW(params)),
}


def make_turn(make: Make) -> Callable[[], Cost]:
    """A function that takes some steps and returns what one of them cost."""
    torch.manual_seed(0)
    params = list(Gpt().parameters())
    optimizer = make(params)

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
    order, draw = list(ARMS), random.Random(0)
    for _ in range(rounds):
        draw.shuffle(order)
        for name in order:
            costs[name].append(turns[name]())
    return costs


def compared(costs: Mapping[str, Sequence[Cost]]) -> list[Figure]:
    """Ratios to AdamW's time, of medians and quartiles of the rounds."""
    base = costs[BASE]
    found = [middle(BASE, "step", [1e3 * cost.wall for cost in base], "ms")]
    for name, its_costs in costs.items():
        if name != BASE:
            pairs = list(zip(its_costs, base, strict=True))
            wall, cpu = ([a[i] / b[i] for a, b in pairs] for i in range(2))
            found.append(middle(name, "wall ratio", wall))
            found.append(middle(name, "CPU ratio", cpu))
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=31)
    options = parse(__doc__, parser)
    torch.set_num_threads(options.threads)
    rounds = 2 if options.quick else options.rounds
    keep("optimizers", compared(run_arms(rounds)), options)


if __name__ == "__main__":
    main()
