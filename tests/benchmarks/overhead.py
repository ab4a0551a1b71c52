"""What watching costs: training with and without, and beside other tools.

Arms take turns, a few steps each, so that a noisy machine treats all alike; the
bare arm runs twice, and the second against the first says how noisy it was. The
time that a tool needs to finish is spread over its steps. CPU time counts every
thread and child process.

    python -m tests.benchmarks.overhead [--model gpt] [--rounds 9] [--threads 2]
"""

import argparse
import contextlib
import csv
import importlib.util
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import dynoscope
from tests.benchmarks.models import Gpt, conv_loss, conv_net, gpt_loss

RESULTS = Path(__file__).parent / "results" / "overhead.csv"

Observe = Callable[[nn.Module, torch.Tensor], None]
"""Called between backward and step, with the loss."""


class Task(NamedTuple):
    """A network to train, and how many steps an arm's turn has."""

    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module], torch.Tensor]
    steps: int


TASKS = {"gpt": Task(Gpt, gpt_loss, 4), "conv": Task(conv_net, conv_loss, 60)}


class Cost(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


@contextlib.contextmanager
def bare(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Observe]:
    """No tool."""
    yield lambda model, loss: None


def watch(
    **options: object,
) -> Callable[..., contextlib.AbstractContextManager[Observe]]:
    """Dynoscope."""

    @contextlib.contextmanager
    def arm(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Observe]:
        with (
            tempfile.TemporaryDirectory() as folder,
            dynoscope.watch(
                model,
                optimizer,
                run=Path(folder) / "run",
                quiet=True,
                **options,  # type: ignore[arg-type]
            ) as scope,
        ):
            yield lambda model, loss: scope.log(loss=loss)

    return arm


@contextlib.contextmanager
def wandb_watch(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observe]:
    """wandb.watch of gradients and parameters at every step, offline."""
    import wandb

    with tempfile.TemporaryDirectory() as folder:
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        run = wandb.init(mode="offline", dir=folder, settings=settings)
        run.watch(model, log="all", log_freq=1)
        try:
            yield lambda model, loss: run.log({"loss": loss.item()})
        finally:
            run.unwatch(model)
            run.finish()


@contextlib.contextmanager
def tensorboard(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Observe]:
    """Histograms of every weight and gradient at every step."""
    from torch.utils.tensorboard import SummaryWriter

    with tempfile.TemporaryDirectory() as folder:
        writer, step = SummaryWriter(folder), 0

        def observe(model: nn.Module, loss: torch.Tensor) -> None:
            nonlocal step
            writer.add_scalar("loss", loss, step)
            for name, parameter in model.named_parameters():
                writer.add_histogram(name, parameter, step)
                writer.add_histogram(f"{name}.grad", parameter.grad, step)
            step += 1

        try:
            yield observe
        finally:
            writer.close()


ARMS = {
    "bare": bare,
    "bare again": bare,
    "dynoscope every=1": watch(every=1),
    "dynoscope every=1, no neurons": watch(every=1, neurons=False),
    "dynoscope every=10": watch(every=10),
    "wandb.watch all, every step": wandb_watch,
    "TensorBoard histograms": tensorboard,
}
NEEDS = {
    "wandb.watch all, every step": "wandb",
    "TensorBoard histograms": "tensorboard",
}


def now() -> Cost:
    """Time used so far."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return Cost(time.perf_counter(), cpu)


def run_arms(task: Task, rounds: int) -> dict[str, list[Cost]]:
    """Cost of one step, per arm and round; finishing is spread over all rounds."""
    missing = {arm for arm, need in NEEDS.items() if not importlib.util.find_spec(need)}
    arms = {name: arm for name, arm in ARMS.items() if name not in missing}
    costs: dict[str, list[Cost]] = {name: [] for name in arms}
    turns, stacks = {}, {}
    for name, arm in arms.items():
        torch.manual_seed(0)
        model = task.build()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        stacks[name] = contextlib.ExitStack()
        observe = stacks[name].enter_context(arm(model, optimizer))
        turns[name] = make_turn(task, model, optimizer, observe)
        turns[name](2)  # warm up
    order = list(arms)
    for _ in range(rounds):
        for name in order:
            start = now()
            turns[name](task.steps)
            spent = now() - start
            costs[name].append(Cost(*(x / task.steps for x in spent)))
        order = order[1:] + order[:1]
    for name, stack in stacks.items():
        start = now()
        stack.close()
        finish = [x / task.steps / rounds for x in now() - start]
        costs[name] = [Cost(c.wall + finish[0], c.cpu + finish[1]) for c in costs[name]]
    return costs


def make_turn(
    task: Task, model: nn.Module, optimizer: torch.optim.Optimizer, observe: Observe
) -> Callable[[int], None]:
    """A function that trains for some steps."""

    def turn(steps: int) -> None:
        for _ in range(steps):
            loss = task.loss(model)
            loss.backward()
            observe(model, loss)
            optimizer.step()
            optimizer.zero_grad()

    return turn


def ratios(costs: list[Cost], base: list[Cost]) -> tuple[list[float], list[float]]:
    """Wall and CPU time against the bare arm, round by round."""
    pairs = list(zip(costs, base, strict=True))
    return [a.wall / b.wall for a, b in pairs], [a.cpu / b.cpu for a, b in pairs]


def copy_seconds(model: nn.Module) -> float:
    """One copy of all parameters: a unit of cost that holds across machines."""
    source = [parameter.detach() for parameter in model.parameters()]
    target = [torch.empty_like(parameter) for parameter in source]
    times = []
    for _ in range(30):
        start = time.perf_counter()
        torch._foreach_copy_(target, source)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(name: str, costs: dict[str, list[Cost]], copy: float) -> list[list[object]]:
    """Print a table; give its rows for the CSV file."""
    base = costs["bare"]
    step = statistics.median(c.wall for c in base)
    table = Table(title=f"{name}: a bare step takes {step * 1e3:.1f} ms")
    for column in ("arm", "wall ratio", "min to max", "CPU ratio", "copies"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    rows: list[list[object]] = []
    for arm, arm_costs in costs.items():
        wall, cpu = ratios(arm_costs, base)
        middle = statistics.median(wall), statistics.median(cpu)
        copies = (middle[0] - 1) * step / copy
        table.add_row(
            arm,
            f"{middle[0]:.3f}",
            f"{min(wall):.2f} to {max(wall):.2f}",
            f"{middle[1]:.3f}",
            f"{copies:.1f}",
        )
        rows.append([name, arm, *(f"{x:.4f}" for x in (*middle, min(wall), max(wall)))])
    Console().print(table)
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What watching costs.")
    parser.add_argument("--model", choices=list(TASKS), action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}; "
        f"medians of {options.rounds} interleaved rounds. The tools do not record "
        "the same: only dynoscope has angles, predictions and neurons."
    )
    rows: list[list[object]] = []
    for name in options.model or TASKS:
        task = TASKS[name]
        costs = run_arms(task, options.rounds)
        rows += report(name, costs, copy_seconds(task.build()))
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "arm", "wall", "cpu", "wall_min", "wall_max"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
