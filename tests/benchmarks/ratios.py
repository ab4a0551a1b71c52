"""Time against the bare arms: what a round says, and what they say together.

Turns in which something was measured, or counted, are apart from those in which
nothing was: a median over all would only see the kind that most are of. Each kind
counts for as much as it makes up of a long training.
"""

import collections
from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple

from dynoscope.schedule import log_spaced
from tests.benchmarks import arms
from tests.benchmarks.figures import Figure, quartiles
from tests.benchmarks.training import Cost
from tests.benchmarks.turns import Played

__all__ = [
    "Kind",
    "against",
    "as_it_was",
    "bare_step",
    "by_round",
    "kinds",
    "long_training",
]

LONG: Final = 1_000
"""Steps of a training that is long: histograms grow rare."""


class Kind(NamedTuple):
    """What happened in a turn."""

    measured: bool
    counted: bool


def bare_step(played: Mapping[str, Played]) -> list[Cost]:
    """What a step costs unwatched, by round: the mean of both bare arms."""
    pairs = zip(played["bare"].costs, played["bare again"].costs, strict=True)
    return [Cost((a.wall + b.wall) / 2, (a.cpu + b.cpu) / 2) for a, b in pairs]


def by_round(costs: Sequence[Cost], base: Sequence[Cost]) -> list[Cost]:
    """Ratios."""
    pairs = zip(costs, base, strict=True)
    return [Cost(a.wall / b.wall, a.cpu / b.cpu) for a, b in pairs]


def kinds(played: Played) -> list[Kind]:
    """What happened in each turn, by what the run has recorded."""
    measured, counted = played.recorded.measured, played.recorded.counted
    return [_kind(turn, measured, counted) for turn in played.turns]


def _kind(turn: range, measured: Set[int], counted: Set[int]) -> Kind:
    return Kind(not measured.isdisjoint(turn), not counted.isdisjoint(turn))


def long_training(interval: int, histograms: bool, steps: int) -> Mapping[Kind, float]:
    """Shares of the kinds among the turns of a long training.

    Args:
        interval: of measured steps.
        histograms: whether there are any: at steps that grow apart.
        steps: of a turn.
    """
    is_due, due = log_spaced(), arms.each(interval)
    measured = [step for step in range(LONG) if due(step)]
    counted = {step for step in measured if histograms and is_due(step)}
    turns = [range(start, start + steps) for start in range(0, LONG, steps)]
    return as_it_was([_kind(turn, set(measured), counted) for turn in turns])


def as_it_was(of: Sequence[Kind]) -> Mapping[Kind, float]:
    """Shares of the kinds among some turns."""
    return {kind: count / len(of) for kind, count in collections.Counter(of).items()}


def against(
    case: str,
    what: str,
    ratios: Sequence[float],
    of: Sequence[Kind],
    shares: Mapping[Kind, float],
) -> Figure:
    """The mean that is to be expected, from the median of each kind of turn.

    Args:
        case: what it is about.
        what: which ratio.
        ratios: by turn.
        of: kinds of the turns.
        shares: of the kinds in a training; those that did not come up are left out.
    """
    groups: dict[Kind, list[float]] = collections.defaultdict(list)
    for kind, ratio in zip(of, ratios, strict=True):
        groups[kind].append(ratio)
    if not groups.keys() & shares.keys():
        shares = as_it_was(of)
    seen = {kind: share for kind, share in shares.items() if kind in groups}
    low, value, high = (
        sum(share * quartiles(groups[kind])[index] for kind, share in seen.items())
        / sum(seen.values())
        for index in range(3)
    )
    return Figure(case, what, value, low, high, len(ratios), "")
