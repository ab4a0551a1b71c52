"""What the hooks cost the training's thread, at measured steps and at others.

At a measured step it is the time in them while a network trains, without the writer
thread: CPU time where torch has one thread, else by the clock. At another step it is
what a loop takes that only calls them; torch's own way to them is not counted. Those
calls do the same each time: whatever a block of them takes beyond the least is the
machine's, and short blocks are the likelier to be left in peace.

    python -m tests.benchmarks.hooks [--threads 2]
"""

import functools
import statistics
import time
import timeit
from collections.abc import Callable
from typing import Any, Final

import torch

from dynoscope.hooks import Watcher, find_watched
from dynoscope.recorder import Bystander
from dynoscope.schedule import Budget, Schedule, every
from tests.benchmarks.copies import Copier
from tests.benchmarks.figures import Figure, keep, middle, once
from tests.benchmarks.options import Options, parse
from tests.benchmarks.tasks import TASKS

STEPS: Final = {"gpt": 16, "conv": 150}
WARM_UP: Final = 3

CALLS, REPEATS = 500, 300

NOWHERE: Final = Bystander(0, strict=True)
"""It keeps nothing of what it is given."""

Hook = Callable[..., Any]


def spent_budget() -> Budget:
    """A budget that has run out in its first hundred steps."""
    budget, step = Budget(0.01), 0
    while budget(step):
        budget.spent(step, now=float(step), seconds=1e6)
        step += 1
    return budget


def unmeasured(schedule: Schedule, options: Options) -> float:
    """Nanoseconds of both hooks at a step that is not measured."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    find = functools.partial(find_watched, model, optimizer)
    watcher = Watcher(find, schedule)
    watcher.start_at(101)
    watcher.attach(NOWHERE)
    (before,) = optimizer._optimizer_step_pre_hooks.values()
    (after,) = optimizer._optimizer_step_post_hooks.values()
    repeats = REPEATS // 10 if options.quick else REPEATS
    arguments: tuple[Any, ...] = (optimizer, (optimizer,), {})

    def loop() -> None:
        for _ in range(CALLS):
            before(*arguments)
            after(*arguments)

    seconds = timeit.repeat(loop, number=1, repeat=repeats, timer=time.thread_time)
    watcher.detach()
    return min(seconds) / CALLS * 1e9


def measured(name: str, options: Options) -> list[Figure]:
    """Both hooks while a network trains, and the last part of the second on its own."""
    torch.manual_seed(0)
    task = TASKS[name]
    model = task.build()
    optimizer = task.optimizer(model)
    watcher = Watcher(functools.partial(find_watched, model, optimizer), every(1))
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {}

    def timed(what: str, work: Hook) -> Hook:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            result = work(*args, **kwargs)
            times.setdefault(what, []).append(clock() - start)
            return result

        return run

    setattr(watcher, "_ship", timed("ship", watcher._ship))  # noqa: B010
    watcher.attach(NOWHERE)
    for hooks, what in (
        (optimizer._optimizer_step_pre_hooks, "before"),
        (optimizer._optimizer_step_post_hooks, "after"),
    ):
        for key, hook in hooks.items():
            hooks[key] = timed(what, hook)

    def train(between: Callable[[], None] = lambda: None) -> None:
        (task.small if options.quick else task.loss)(model).backward()
        between()
        optimizer.step()
        optimizer.zero_grad()

    steps = 3 if options.quick else STEPS[name]
    for _ in range(WARM_UP + steps):
        timed("step", train)()
    watcher.detach()
    copier = Copier(model, clock)
    for _ in range(steps):
        train(copier)
    return _figures(name, times, statistics.median(copier.seconds))


def _figures(name: str, times: dict[str, list[float]], copy: float) -> list[Figure]:
    """Microseconds of a step, and what they amount to."""
    steps, before, after, ship = (
        times[what][WARM_UP:] for what in ("step", "before", "after", "ship")
    )
    both = [a + b for a, b in zip(before, after, strict=True)]
    bare = [step - its for step, its in zip(steps, both, strict=True)]
    taken = {
        "before": before,
        "after and ship": after,
        "ship": ship,
        "both hooks": both,
    }
    return [
        *(
            middle(name, what, [1e6 * x for x in its], "us")
            for what, its in taken.items()
        ),
        middle(
            name,
            "share of a bare step",
            [a / b for a, b in zip(both, bare, strict=True)],
        ),
        middle(name, "both hooks", [x / copy for x in both], "copies"),
    ]


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__)
    torch.set_num_threads(options.threads)
    found = [
        once("not measured", words, unmeasured(schedule, options), "ns")
        for words, schedule in (("every=n", every(10**9)), ("budget", spent_budget()))
    ]
    for name in TASKS:
        found += measured(name, options)
    keep("hooks", found, options)


if __name__ == "__main__":
    main()
