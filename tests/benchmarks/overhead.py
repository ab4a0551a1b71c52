"""What watching costs: quantity x interval x network, and other tools in the same run.

A ratio is that of steps with an arm on to those beside them with it off (`training`,
`ratios`): of time by the clock, and of CPU time of the threads that train. What other
threads and processes do falls on both alike, so that their CPU time is measured apart
and added per step that was on. By the clock that is an upper bound, as if the training
stood still meanwhile; it is added for dynoscope alone, and other tools have it for
nothing. Where there are bars it is taken from stretches with nothing but on, else from
pairs, half of whose steps are off: what threads do by the clock, and not by
measurements, counts twice there. The end of the watching is a figure of its own. The
tools do not record the same: only dynoscope has angles, predictions and neurons.

    python -m tests.benchmarks.overhead [--task gpt] [--rounds 3] [--threads 2]
"""

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from dynoscope.measurement import FloatArray
from tests.benchmarks import arms, machine
from tests.benchmarks.clocks import Cost
from tests.benchmarks.figures import Figure, keep, load, middle, once, write_rows
from tests.benchmarks.options import Options, parse
from tests.benchmarks.ratios import (
    as_figure,
    as_it_was,
    between,
    estimated,
    kind_of,
    long_training,
    mean,
)
from tests.benchmarks.tasks import TASKS
from tests.benchmarks.training import PACES, Half
from tests.benchmarks.turns import Match, Played, play

__all__ = ["compared", "keep_rounds", "known", "less_added", "own_cost", "task_by_task"]

ROUNDS: Final = {"gpt": 3, "conv": 3}

SPACED: Final = {
    arms.name(quantity, interval): steps
    for quantity in arms.QUANTITIES
    for interval, steps in arms.INTERVALS.items()
    if steps is not None
}
"""Interval of each arm that has a fixed one."""

OTHERS: Final = ("wandb.watch", "TensorBoard")

BARRED: Final = tuple(
    arms.name(quantity, "every step") for quantity in ("layers", "+ neurons")
)
"""Arms whose small ratios are held against bars: most of the time is theirs."""

SMALL: Final = ("conv",)
"""Tasks whose steps are so short that many train them on one thread: they have figures
of that, too, for the arms with bars."""

STRETCH: Final = {"gpt": 16, "conv": 250}
"""Steps of a turn of these arms with nothing but on."""

TINY: Final = {"gpt": 60, "conv": 400}
"""Steps on small batches before the first turn: at first the rules are asked often."""

PAIRS: Final = {"gpt": (60, 4), "conv": (140, 16)}
"""Pairs of a turn, of these arms and of the others."""


def grid(task: str, rounds: int, options: Options) -> list[Figure]:
    """Every quantity at every fixed interval, and the other tools."""
    played = _played(task, ("bare", *SPACED, *OTHERS), rounds, options)
    keep_rounds(f"overhead_{task}_rounds", played, options)
    found = compared(task, played)
    arm = arms.name("+ neurons", "every step")
    found += [*own_cost(task, arm, played[arm]), *less_added(task, arm, found)]
    if task in SMALL:
        played = _played(task, ("bare", *BARRED), rounds, options, threads=1)
        keep_rounds(f"overhead_{task}_one_thread_rounds", played, options)
        name = f"{task}, one thread"
        found += [*compared(task, played, name), *own_cost(name, arm, played[arm])]
    return found


def _played(
    task: str,
    names: Sequence[str],
    rounds: int,
    options: Options,
    threads: int | None = None,
) -> dict[str, Played]:
    many, few = (2, 2) if options.quick else PAIRS[task]
    pairs = {arm: many if arm in BARRED else few for arm in names}
    stretch = dict.fromkeys(BARRED, 4 if options.quick else STRETCH[task])
    match = Match(
        *(task, pairs, rounds, threads or options.threads),
        tiny=2 if options.quick else TINY[task],
        small=options.quick,
        stretch=stretch,
    )
    return play(match)


def compared(
    task: str, played: Mapping[str, Played], name: str | None = None
) -> list[Figure]:
    """Each arm on against itself off; `name` is what figures call the task."""
    name = name or task
    steps = [pair.off.cost.wall for its in played.values() for pair in its.pairs]
    copies = [seconds for its in played.values() for seconds in its.copies]
    copy = statistics.median(copies)
    case = f"{name}, bare"
    found = [
        middle(case, "step", [1e3 * step for step in steps], "ms"),
        middle(case, "one copy of all parameters", [1e3 * x for x in copies], "ms"),
    ]
    for arm, its in played.items():
        found += _of_arm(task, name, arm, its, copy)
    return found


def _of_arm(task: str, name: str, arm: str, its: Played, copy: float) -> list[Figure]:
    """Its ratios, what they amount to, and what its end costs."""
    case, pairs = f"{name}, {arm}", its.pairs
    kinds = [kind_of(pair, its.recorded) for pair in pairs]
    shares = as_it_was(kinds)
    if arm in SPACED:
        has_histograms = bool(its.recorded.counted)
        shares = long_training(SPACED[arm], has_histograms, PACES[task].steps)
    beside = mean(_beside(its), its.beside)
    found = []
    for index, what in enumerate(("wall ratio", "CPU ratio")):
        ratios = [pair.on.cost[index] / pair.off.cost[index] for pair in pairs]
        step = statistics.median(pair.off.cost[index] for pair in pairs)
        ratio = estimated(ratios, kinds, shares)
        low, high = between(ratios, kinds, shares)
        if what == "CPU ratio" or arm not in OTHERS:
            ratio = ratio + beside / step
            low, high = low + its.beside / step, high + its.beside / step
        found.append(as_figure(case, what, ratio, len(pairs), quarters=(low, high)))
        if what == "wall ratio":
            copies = (ratio - 1) * step / copy
            added = as_figure(case, "added wall time", copies, len(pairs), "copies")
    if arm == "bare":
        return found
    aside = as_figure(case, "beside, per step", 1e3 * beside, len(pairs), "ms")
    closing = [
        once(case, "closing", 1e3 * its.closing.wall, "ms"),
        once(case, "closing, CPU", 1e3 * (its.closing.cpu + its.closing.beside), "ms"),
    ]
    return [*found, added, aside, *closing]


def _beside(its: Played) -> list[float]:
    """CPU time of other threads while pairs were timed."""
    return [pair.on.cost.beside + pair.off.cost.beside for pair in its.pairs]


def own_cost(name: str, arm: str, its: Played) -> list[Figure]:
    """What a run says that it took, against the time that it added to the training.

    Without its end, which it cannot record any more. A step differs from the next by
    as much as all that is added, but hardly in its optimizer's part, where the hooks
    are: by that part alone the same is far surer; of the rest it is said whether
    anything was added there.
    """
    case, pairs = f"{name}, {arm}", its.pairs
    steps = its.stretches or its.on
    said = sum(its.recorded.costs.get(step, 0.0) for step in steps) / len(steps)
    kinds = [kind_of(pair, its.recorded) for pair in pairs]
    shares, beside = as_it_was(kinds), mean(_beside(its), its.steadily)

    def ratio(seconds: Callable[[Half], float]) -> FloatArray:
        ratios = [seconds(pair.on) / seconds(pair.off) for pair in pairs]
        return estimated(ratios, kinds, shares)

    def bare(seconds: Callable[[Half], float]) -> float:
        return statistics.median(seconds(pair.off) for pair in pairs)

    def account(seconds: Callable[[Half], float]) -> FloatArray:
        by: FloatArray = said / ((ratio(seconds) - 1) * bare(seconds) + beside)
        return by

    return [
        once(case, "own account, share of a bare step", said / bare(_whole)),
        *(
            as_figure(case, what, estimate, len(pairs))
            for what, estimate in {
                "own account by added wall time": account(_whole),
                "own account by time added to the optimizer's step": account(_in_it),
                "all but the optimizer's step, wall ratio": ratio(_outside),
            }.items()
        ),
    ]


def _whole(half: Half) -> float:
    return half.cost.wall


def _in_it(half: Half) -> float:
    return half.optimizer


def _outside(half: Half) -> float:
    return half.cost.wall - half.optimizer


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
            _by(each.between[0] - 1, ours.between[1] - 1),
            _by(each.between[1] - 1, ours.between[0] - 1),
            each.times,
            "",
        )
        for each in theirs
        if ours is not None
    ]


def _by(theirs: float, ours: float) -> float:
    """Infinite, where ours is lost in the noise."""
    return theirs / ours if ours > 0 else math.inf


def keep_rounds(name: str, played: Mapping[str, Played], options: Options) -> None:
    """The raw times: one row per arm and pair, seconds of a step."""
    fields = (*Cost._fields, "optimizer")
    halves = [f"{half}_{what}" for half in ("on", "off") for what in fields]
    rows = [
        [
            *(arm, turn, pair.on.steps.start, *kind_of(pair, its.recorded)),
            *(f"{x:.6g}" for half in pair for x in (*half.cost, half.optimizer)),
        ]
        for arm, its in played.items()
        for turn, each in enumerate(its.turns)
        for pair in each.pairs
    ]
    names = ["arm", "round", "step", "measured", "counted", *halves]
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
    for task in TASKS:
        if task in (options.task or TASKS):
            count = options.rounds or (2 if options.quick else rounds[task])
            found += work(task, count, options)
        else:
            found += known(part, task, options)
    keep(part, found, options)


def known(part: str, task: str, options: Options) -> list[Figure]:
    """Figures of a task from another time, if that was as quick, or slow."""
    facts = machine.load(options.results).get(part, {})
    if facts.get("quick") != options.quick:
        return []
    its = load(options.results, part)
    return [figure for figure in its if figure.case.startswith(f"{task}, ")]


def main() -> None:
    """Run the benchmark."""
    task_by_task("overhead", __doc__, ROUNDS, grid)


if __name__ == "__main__":
    main()
