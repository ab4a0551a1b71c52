"""What the default costs: `watch(model, optimizer)`, which spaces its measurements.

By the clock, so that turns are long here: an arm that stands still for a while
takes its steps to be slow. Training starts on small batches, to be past the first
steps, all of which are measured, when the first turn begins.

    python -m tests.benchmarks.budget [--task gpt] [--rounds 5] [--threads 2]
"""

import itertools
import statistics
from typing import Final

from tests.benchmarks import arms
from tests.benchmarks.figures import Figure, once
from tests.benchmarks.options import Options
from tests.benchmarks.overhead import (
    compared,
    keep_rounds,
    own_cost,
    task_by_task,
)
from tests.benchmarks.turns import Match, play

TURNS: Final = {"gpt": 24, "conv": 250}
"""Steps of a turn: several measurements."""

ROUNDS: Final = {"gpt": 5, "conv": 6}

TINY, LAST = 88, 14
"""Steps before the first turn: on small batches, and then on those of the turns, so
that their pace is known when the first hundred are over."""

__all__ = ["ARM"]

ARM: Final = arms.name("+ neurons", "default")


def default(task: str, rounds: int, options: Options) -> list[Figure]:
    """The default against the bare arms."""
    match = Match(
        task,
        [ARM],
        TURNS[task] // (8 if options.quick else 1),
        rounds,
        options.threads,
        warm_up=2 if options.quick else LAST,
        tiny=2 if options.quick else TINY,
        small=options.quick,
    )
    played = play(match)
    keep_rounds(f"budget_{task}_rounds", played, options)
    first, last = played[ARM].turns[0].start, played[ARM].turns[-1].stop
    measured = sorted(s for s in played[ARM].recorded.measured if first <= s < last)
    gaps = [b - a for a, b in itertools.pairwise(measured)]
    interval = statistics.median(gaps) if gaps else float(last - first)
    return [
        *compared(task, played),
        once(f"{task}, {ARM}", "steps from one measurement to the next", interval),
        *own_cost(task, ARM, played),
    ]


def main() -> None:
    """Run the benchmark."""
    task_by_task("budget", __doc__, ROUNDS, default)


if __name__ == "__main__":
    main()
