"""What being watched costs, by pairs of halves, on and off; and how sure that is.

Halves in which something was measured, or counted, are apart from those in which
nothing was: each kind counts for as much as it makes up of a long training. Of a kind
it is the mean of the middle half of its pairs' ratios (of their logarithms, for which
on and off are alike), since hiccups of the machine lie on both ends; what happens in
fewer than one of four halves of a kind is left out with them.

An estimate is an array: first the value, then what it would have been, had other pairs
been drawn. So estimates are added and divided as they are, and know their error.
"""

import collections
from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple

import numpy as np

from dynoscope.measurement import FloatArray
from dynoscope.schedule import log_spaced
from tests.benchmarks.figures import Figure, quartiles
from tests.benchmarks.training import Pair, Recorded

__all__ = [
    "Kind",
    "as_figure",
    "as_it_was",
    "between",
    "estimated",
    "kind_of",
    "long_training",
    "mean",
]

LONG: Final = 1_000
"""Steps of a training that is long: histograms grow rare."""

DRAWS: Final = 2_000

_Shares = Mapping["Kind", float]


class Kind(NamedTuple):
    """How many of a half's timed steps were measured, and histograms filled at."""

    measured: int
    counted: int


def kind_of(pair: Pair, recorded: Recorded) -> Kind:
    """What happened in the half that was on, by what the run has recorded."""
    return _kind(pair.on.steps, recorded.measured, recorded.counted)


def _kind(steps: range, measured: Set[int], counted: Set[int]) -> Kind:
    return Kind(len(measured & set(steps)), len(counted & set(steps)))


def long_training(interval: int, histograms: bool, steps: int) -> _Shares:
    """Shares of the kinds among the halves of a long training.

    Args:
        interval: of measured steps.
        histograms: whether there are any: at steps that grow apart.
        steps: of a half.
    """
    is_due = log_spaced()
    measured = set(range(0, LONG, interval))
    counted = {step for step in sorted(measured) if histograms and is_due(step)}
    # A half may begin at any step.
    halves = [range(start, start + steps) for start in range(LONG - steps + 1)]
    return as_it_was([_kind(half, measured, counted) for half in halves])


def as_it_was(of: Sequence[Kind]) -> _Shares:
    """Shares of the kinds among some halves."""
    return {kind: count / len(of) for kind, count in collections.Counter(of).items()}


def estimated(
    ratios: Sequence[float], of: Sequence[Kind], shares: _Shares, seed: int = 0
) -> FloatArray:
    """The ratio that is to be expected.

    Its error is that of the bootstrap: what scatters about the middle of its kind is
    the machine's, so that each kind draws from what does so of all, and one that came
    up only once or twice has an error, too.

    Args:
        ratios: on by off, by pair.
        of: kinds of the pairs.
        shares: of the kinds in a training; those that did not come up are left out.
        seed: of what is drawn.
    """
    groups = _groups(ratios, of)
    random = np.random.default_rng(seed)
    centres = {kind: _centre(logs) for kind, logs in groups.items()}
    rest = np.concatenate([logs - centres[kind] for kind, logs in groups.items()])
    rest *= np.sqrt(len(rest) / max(len(rest) - len(groups), 1))
    total = np.zeros(1 + DRAWS)
    for kind, share in _seen(shares, groups, of).items():
        drawn = random.choice(rest, (DRAWS, len(groups[kind])))
        total[0] += share * np.exp(centres[kind])
        total[1:] += share * np.exp(centres[kind] + _centre(drawn))
    return total


def mean(parts: Sequence[float], whole: float, seed: int = 0) -> FloatArray:
    """A mean that is known, with an error by how the parts of it that are seen scatter.

    Args:
        parts: at least one.
        whole: the mean.
        seed: of what is drawn.
    """
    values = np.asarray(parts, float)
    drawn = np.random.default_rng(seed).choice(values, (DRAWS, len(values)))
    return whole + np.concatenate([[0.0], drawn.mean(axis=1) - values.mean()])


def between(
    ratios: Sequence[float], of: Sequence[Kind], shares: _Shares
) -> tuple[float, float]:
    """Quartiles of the pairs, of each kind by its share."""
    groups = _groups(ratios, of)
    seen = _seen(shares, groups, of)
    found = {kind: quartiles(np.exp(groups[kind]).tolist()) for kind in seen}
    low, high = (
        sum(share * found[kind][index] for kind, share in seen.items())
        for index in (0, 2)
    )
    return low, high


def as_figure(
    case: str,
    what: str,
    estimate: FloatArray,
    times: int,
    unit: str = "",
    quarters: tuple[float, float] | None = None,
) -> Figure:
    """Value and standard error; quartiles of what was drawn where there are no others.

    The error is half of what holds the middle 68 % of the draws: that of a normal
    distribution, and finite for a quotient whose divisor may come near zero.

    Args:
        case: what it is about.
        what: what of it.
        estimate: value and draws.
        times: pairs.
        unit: of the value.
        quarters: quartiles of the pairs.
    """
    below, above = np.quantile(estimate[1:], (0.1587, 0.8413))
    value, error = float(estimate[0]), float(above - below) / 2
    low, high = quarters or map(float, np.quantile(estimate[1:], (0.25, 0.75)))
    return Figure(case, what, value, low, high, times, unit, error)


def _groups(ratios: Sequence[float], of: Sequence[Kind]) -> dict[Kind, FloatArray]:
    groups: dict[Kind, list[float]] = collections.defaultdict(list)
    for kind, ratio in zip(of, ratios, strict=True):
        groups[kind].append(ratio)
    return {kind: np.log(its) for kind, its in sorted(groups.items())}


def _seen(
    shares: _Shares, groups: Mapping[Kind, FloatArray], of: Sequence[Kind]
) -> _Shares:
    """Shares of those that came up; if those that did are no others, as it was."""
    if not groups.keys() & shares.keys():
        shares = as_it_was(of)
    seen = {kind: share for kind, share in shares.items() if kind in groups}
    return {kind: share / sum(seen.values()) for kind, share in seen.items()}


def _centre(logs: FloatArray) -> FloatArray:
    """Mean of the middle half, along the last axis; of fewer than four, the mean."""
    out = logs.shape[-1] // 4
    middle: FloatArray = np.sort(logs, axis=-1)[..., out : logs.shape[-1] - out]
    return np.asarray(middle.mean(axis=-1))
