"""What the hooks cost the training thread, at steps that are measured and at others.

At a measured step it is the time in them while a network trains, without the writer
thread; the unit of `copies` is one copy of all parameters. At another it is what a
loop takes that does nothing but call them; torch's own way to them is not counted.

    python -m tests.benchmarks.hooks [--threads 2]
"""

import argparse
import csv
import functools
import os
import statistics
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dynoscope.hooks import Watcher, find_watched
from dynoscope.measurement import Measurement, Work
from dynoscope.schedule import Budget, Schedule, every
from tests.benchmarks.overhead import TASKS, Task, copy_seconds

RESULTS = Path(__file__).parent / "results" / "hooks.csv"
STEPS = {"conv": 150, "gpt": 16}
CALLS = 5_000
REPEATS = 30

Hook = Callable[..., Any]


class Nowhere:
    """A sink that keeps nothing, as fast as can be."""

    work = Work(0.0, 0)

    def has_room(self) -> bool:
        """Always."""
        return True

    def put(self, measurement: Measurement) -> None:
        """Forget it."""

    def note(self, problem: str) -> None:
        """Stop."""
        raise RuntimeError(problem)

    def fail(self, problem: str, error: Exception) -> None:
        """Stop."""
        raise error


def watched(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule
) -> Watcher:
    """A watcher of the model, not attached yet."""
    return Watcher(functools.partial(find_watched, model, optimizer), schedule)


def hooks_of(optimizer: torch.optim.Optimizer) -> tuple[Hook, Hook]:
    """What torch calls before a step and after it."""
    (before,) = optimizer._optimizer_step_pre_hooks.values()
    (after,) = optimizer._optimizer_step_post_hooks.values()
    return before, after


def spent() -> Schedule:
    """A budget that has just measured, and will not again for a while."""
    budget = Budget(0.01)
    for step in range(110):
        if budget(step):
            budget.spent(step, now=float(step), seconds=100.0)
    return budget


def unmeasured() -> dict[str, float]:
    """Nanoseconds of both hooks at a step that is not measured, by schedule."""
    found = {}
    for name, schedule, first in (("every", every(10**9), 1), ("budget", spent(), 110)):
        model = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        watcher = watched(model, optimizer, schedule)
        watcher.start_at(first)
        watcher.attach(Nowhere(), lambda: None)
        before, after = hooks_of(optimizer)
        arguments: tuple[Any, ...] = (optimizer, (optimizer,), {})

        def both(
            before: Hook = before,
            after: Hook = after,
            arguments: tuple[Any, ...] = arguments,
        ) -> None:
            for _ in range(CALLS):
                before(*arguments)
                after(*arguments)

        seconds = timeit.repeat(both, number=1, repeat=REPEATS, timer=time.thread_time)
        found[name] = min(seconds) / CALLS * 1e9
        watcher.detach()
    return found


def measured(task: Task, steps: int) -> dict[str, float]:
    """Medians while the network trains, in microseconds."""
    torch.manual_seed(0)
    model = task.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    watcher = watched(model, optimizer, every(1))
    # A thread that is alone can leave out the time that others take from it.
    alone = torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    times: dict[str, list[float]] = {
        name: [] for name in ("step", "before", "after", "ship")
    }

    def timed(name: str, work: Hook) -> Hook:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            result = work(*args, **kwargs)
            times[name].append(clock() - start)
            return result

        return run

    setattr(watcher, "_ship", timed("ship", watcher._ship))  # noqa: B010
    watcher.attach(Nowhere())
    for hooks, name in (
        (optimizer._optimizer_step_pre_hooks, "before"),
        (optimizer._optimizer_step_post_hooks, "after"),
    ):
        for key, hook in hooks.items():
            hooks[key] = timed(name, hook)
    for _ in range(steps):
        start = clock()
        task.loss(model).backward()
        optimizer.step()
        optimizer.zero_grad()
        times["step"].append(clock() - start)
    watcher.detach()
    middle = {name: 1e6 * statistics.median(found[3:]) for name, found in times.items()}
    middle["after"] -= middle["ship"]
    hooks_take = middle["before"] + middle["after"] + middle["ship"]
    middle["step"] -= hooks_take
    middle["all"] = hooks_take
    middle["share"] = hooks_take / middle["step"]
    middle["copies"] = hooks_take / (1e6 * copy_seconds(model))
    return middle


def main() -> None:
    """Run the benchmark; print its table, and keep it."""
    parser = argparse.ArgumentParser(description="What the hooks cost.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    rows = [
        ["unmeasured", name, "ns", f"{ns:.0f}"] for name, ns in unmeasured().items()
    ]
    units = {"share": "of a bare step", "copies": "copies of all parameters"}
    for name, task in TASKS.items():
        for what, value in measured(task, STEPS[name]).items():
            unit = units.get(what, "us")
            rows.append([name, what, unit, f"{value:.{1 if unit == 'us' else 3}f}"])
    table = Table("model", "what", "unit", "value", title=f"hooks, load {load:.1f}")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "what", "unit", "value"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
