"""What the default costs: `watch(model, optimizer)`, which spaces its measurements.

The budget's own steps and clock stand still while the arm is off, so that it spaces as
it does in a training that is on throughout, and halves can be as short as those of
`overhead`: a pair of long ones, with several measurements each, would last for many
seconds, over which the machine drifts by more than what is to be told. Halves with a
measurement are as many among them as they are in a training, so that each kind counts
for as much as it came up. What other threads do is taken from stretches with nothing
but on: they do some of it by the clock, and between pairs that would fall on half as
many steps as in a training. Training starts on small batches, to be past the first
steps, all of which are measured, when the first turn begins.

    python -m tests.benchmarks.budget [--task gpt] [--rounds 3] [--threads 2]
"""

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

PAIRS: Final = {"gpt": 40, "conv": 140}
"""Of a turn; a fourth as many of the bare arm."""

STRETCH: Final = {"gpt": 30, "conv": 500}
"""Steps of a turn with nothing but on: several measurements."""

ROUNDS: Final = {"gpt": 3, "conv": 3}

TINY, LAST = 88, 14
"""Steps before the first turn: on small batches, and then on those of the turns, so
that their pace is known when the first hundred are over."""

__all__ = ["ARM"]

ARM: Final = arms.name("+ neurons", "default")


def default(task: str, rounds: int, options: Options) -> list[Figure]:
    """The default, and nothing."""
    pairs = 2 if options.quick else PAIRS[task]
    match = Match(
        task,
        {"bare": max(pairs // 4, 2), ARM: pairs},
        rounds,
        options.threads,
        warm_up=2 if options.quick else LAST,
        tiny=2 if options.quick else TINY,
        small=options.quick,
        stretch={ARM: 4 if options.quick else STRETCH[task]},
    )
    played = play(match)
    keep_rounds(f"budget_{task}_rounds", played, options)
    its = played[ARM]
    interval = len(its.on) / max(len(its.recorded.measured.intersection(its.on)), 1)
    return [
        *compared(task, played),
        once(f"{task}, {ARM}", "steps from one measurement to the next", interval),
        *own_cost(task, ARM, its),
    ]


def main() -> None:
    """Run the benchmark."""
    task_by_task("budget", __doc__, ROUNDS, default)


if __name__ == "__main__":
    main()
