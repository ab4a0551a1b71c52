"""What watching costs: quantity x interval x network, and other tools in the same run.

Ratios are to the mean of both bare arms of the same round. The tools do not record the
same: only dynoscope has angles, predictions and neurons.

    python -m tests.benchmarks.overhead [--task gpt] [--rounds 24] [--threads 2]
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from tests.benchmarks import arms
from tests.benchmarks.figures import Figure, keep, middle, once, write_rows
from tests.benchmarks.options import Options, parse
from tests.benchmarks.ratios import (
    against,
    as_it_was,
    bare_step,
    by_round,
    kinds,
    long_training,
)
from tests.benchmarks.tasks import TASKS
from tests.benchmarks.turns import BARE, Match, Played, play

__all__ = ["compared", "keep_rounds", "less_added", "own_cost", "task_by_task"]

TURNS = {"gpt": 2, "conv": 20}
"""Steps of a turn."""

ROUNDS = {"gpt": 24, "conv": 20}

SPACED = {
    arms.name(quantity, interval): steps
    for quantity in arms.QUANTITIES
    for interval, steps in arms.INTERVALS.items()
    if steps is not None
}
"""Interval of each arm that has a fixed one."""

OTHERS = ("wandb.watch", "TensorBoard")


def grid(task: str, rounds: int, options: Options) -> list[Figure]:
    """Every quantity at every fixed interval, and the other tools."""
    match = Match(
        task, [*SPACED, *OTHERS], TURNS[task], rounds, options.threads,
        small=options.quick,
    )  # fmt: skip
    played = play(match)
    keep_rounds(f"overhead_{task}_rounds", played, options)
    found = compared(task, played)
    arm = arms.name("+ neurons", "every step")
    own = own_cost(task, arm, played)
    return [*found, *own, *less_added(task, arm, found)]


def compared(task: str, played: Mapping[str, Played]) -> list[Figure]:
    """Each arm against the bare ones."""
    base = bare_step(played)
    step = statistics.median(cost.wall for cost in base)
    copy = copy_seconds(TASKS[task].build())
    noise = by_round(played["bare again"].costs, played["bare"].costs)
    found = [
        middle(f"{task}, bare", "step", [1e3 * cost.wall for cost in base], "ms"),
        once(f"{task}, bare", "one copy of all parameters", 1e3 * copy, "ms"),
        middle(f"{task}, bare again", "wall ratio", [cost.wall for cost in noise]),
        middle(f"{task}, bare again", "CPU ratio", [cost.cpu for cost in noise]),
    ]
    for arm in played:
        if arm in BARE:
            continue
        happened = kinds(played[arm])
        shares = as_it_was(happened)
        if arm in SPACED:
            has_histograms = bool(played[arm].recorded.counted)
            steps = len(played[arm].turns[0])
            shares = long_training(SPACED[arm], has_histograms, steps)
        ratios = by_round(played[arm].costs, base)
        case = f"{task}, {arm}"
        wall = against(case, "wall ratio", [r.wall for r in ratios], happened, shares)
        cpu = against(case, "CPU ratio", [r.cpu for r in ratios], happened, shares)
        value, low, high = ((ratio - 1) * step / copy for ratio in wall[2:5])
        what = "added wall time"
        copies = Figure(case, what, value, low, high, wall.times, "copies")
        found += [wall, cpu, copies]
    return found


def own_cost(task: str, arm: str, played: Mapping[str, Played]) -> list[Figure]:
    """What a run says that it took, against the time that it added to the training.

    Without its end, which it cannot record any more.
    """
    its, base = played[arm], bare_step(played)
    case, steps = f"{task}, {arm}", len(its.turns) * len(its.turns[0])
    said = sum(its.recorded.costs.get(s, 0.0) for turn in its.turns for s in turn)
    said /= steps
    wall = statistics.mean(cost.wall for cost in its.costs) - its.end.wall
    cpu = statistics.mean(cost.cpu for cost in its.costs) - its.end.cpu
    wall -= (bare := statistics.mean(cost.wall for cost in base))
    cpu -= statistics.mean(cost.cpu for cost in base)
    return [
        once(case, "own account, share of a bare step", said / bare),
        once(case, "own account by added wall time", said / wall),
        once(case, "own account by added CPU time", said / cpu),
    ]


def less_added(task: str, arm: str, figures: Sequence[Figure]) -> list[Figure]:
    """How many times as much wall time the other tools add as an arm does."""
    wall = {each.case: each for each in figures if each.what == "wall ratio"}
    ours = wall.get(f"{task}, {arm}")
    theirs = [wall[case] for other in OTHERS if (case := f"{task}, {other}") in wall]
    return [
        Figure(
            each.case,
            f"added time, that of {arm} being 1",
            _by(each.value - 1, ours.value - 1),
            _by(each.low - 1, ours.high - 1),
            _by(each.high - 1, ours.low - 1),
            each.times,
            "",
        )
        for each in theirs
        if ours is not None
    ]


def _by(theirs: float, ours: float) -> float:
    """Infinite, where ours is lost in the noise."""
    return theirs / ours if ours > 0 else math.inf


def copy_seconds(
    model: nn.Module, clock: Callable[[], float] = time.perf_counter
) -> float:
    """One copy of all parameters: a unit of cost that holds across machines."""
    source = [parameter.detach() for parameter in model.parameters()]
    target = [torch.empty_like(parameter) for parameter in source]
    times = []
    for _ in range(30):
        start = clock()
        torch._foreach_copy_(target, source)
        times.append(clock() - start)
    return statistics.median(times)


def keep_rounds(name: str, played: Mapping[str, Played], options: Options) -> None:
    """The raw times, one row per arm and round."""
    rows = [
        [arm, turn, *(int(each) for each in kind), *(f"{x:.6g}" for x in cost)]
        for arm, its in played.items()
        for turn, (kind, cost) in enumerate(zip(kinds(its), its.costs, strict=True))
    ]
    names = ["arm", "round", "measured", "counted", "wall_seconds", "cpu_seconds"]
    write_rows(options.results / f"{name}.csv", names, rows)


def task_by_task(
    part: str,
    doc: str | None,
    rounds: Mapping[str, int],
    work: Callable[[str, int, Options], list[Figure]],
) -> None:
    """Read the command line, measure the tasks that it names, keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=list(TASKS), action="append")
    parser.add_argument("--rounds", type=int)
    options = parse(doc, parser)
    torch.set_num_threads(options.threads)
    found = []
    for task in options.task or TASKS:
        count = options.rounds or (2 if options.quick else rounds[task])
        found += work(task, count, options)
    keep(part, found, options)


def main() -> None:
    """Run the benchmark."""
    task_by_task("overhead", __doc__, ROUNDS, grid)


if __name__ == "__main__":
    main()
