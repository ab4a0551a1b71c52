"""What a plot shows of a curve: every step of few, means and extremes of many."""

import dataclasses
from typing import Final, NamedTuple

import numpy as np

from dynoscope.dashboard.figures import POINTS, Curve
from dynoscope.dashboard.track import Steps
from dynoscope.dashboard.tracks import Held
from dynoscope.metrics.buckets import Buckets, merge, starts_of

__all__ = ["Part", "drawn", "joined", "part_of"]

BUCKETS: Final = POINTS // 2
"""Buckets of a curve on the screen, most, if they have more than a step each."""


class Part(NamedTuple):
    """A curve, or a stretch of it, in no more buckets than a screen can show.

    Attributes:
        steps: first step of each bucket, shape (buckets,).
        buckets: what is known of each, the same shape; or (buckets, curves).
        span: steps of a bucket; 1 if there is none with more than one measured step.
        last: the newest number as it was measured, of each curve; None if not asked.
    """

    steps: np.ndarray
    buckets: Buckets
    span: int
    last: np.ndarray | None

    def only(self, curve: int) -> "Part":
        """One of several curves."""
        last = None if self.last is None else self.last[curve]
        buckets = self.buckets.at((slice(None), curve))
        return self._replace(buckets=buckets, last=last)

    def where(self, is_there: np.ndarray) -> "Part":
        """Some of the buckets."""
        buckets = self.buckets.at(is_there)
        return self._replace(steps=self.steps[is_there], buckets=buckets)


def part_of(held: Held, window: Steps | None = None) -> Part:
    """What of a track is shown: all of its curves.

    Args:
        held: a curve of it.
        window: the stretch that is looked at; None for all.
    """
    steps, buckets, exponent = held.steps, held.all_buckets, held.track.exponent
    if window is not None:
        inside = slice(*np.searchsorted(steps, window))
        steps, buckets = steps[inside], buckets.at(inside)
    last = held.track.last(held.column) if window is None else None
    if (buckets.known <= 1).all():
        return Part(steps, buckets, 1, last)
    while len(starts := starts_of(steps, exponent)) > BUCKETS:
        exponent += 1
    if len(starts) < len(steps):
        steps, buckets = steps[starts], merge(buckets, starts)
    return Part(steps, buckets, 1 << exponent, last)


def drawn(curve: Curve, part: Part) -> Curve:
    """A curve with its points: means of many steps, and between what these lie."""
    least, mean, most, _ = part.buckets
    if part.span == 1:
        return dataclasses.replace(curve, steps=part.steps, values=mean)
    return dataclasses.replace(
        curve,
        steps=part.steps,
        values=mean,
        spread=np.stack([least, most], axis=1),
        last=None if part.last is None else float(part.last),
    )


def joined(whole: Curve, fine: Curve) -> list[Curve]:
    """A curve whose middle is drawn in more detail.

    Args:
        whole: all of it.
        fine: the stretch that is looked at.
    """
    if not len(fine.steps):
        return [whole]
    ends = fine.steps[[0, 0, -1]], fine.values[[0, 0, -1]]
    ends[1][1] = np.nan  # a gap, for what is drawn instead
    before = int(np.searchsorted(whole.steps, fine.steps[0]))
    after = int(np.searchsorted(whole.steps, fine.steps[-1], side="right"))

    def around(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
        return np.concatenate([outer[:before], inner, outer[after:]])

    spread = None
    if whole.spread is not None:
        spread = around(whole.spread, np.full((3, 2), np.nan))
    rest = dataclasses.replace(
        whole,
        steps=around(whole.steps, ends[0]),
        values=around(whole.values, ends[1]),
        spread=spread,
    )
    return [dataclasses.replace(fine, is_named=False, last=whole.last), rest]
