"""How far a weight turns: from units to layers, and from sums to an angle.

An update d of a weight w has a part along w, (b/a) w with a = sum w**2 and
b = sum w*d, and a part t at right angles to it, which turns the weight. The
device sums t**2 itself. The textbook way, sum d**2 - b**2/a, loses all digits
where an update mostly scales the weight: in float32, sums leave noise of 3e-4
times the update there, where this leaves 3e-7.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray
from dynoscope.metrics.members import Members

__all__ = ["Turning", "angle", "combine", "combine_runs", "rejoin"]


class Turning(NamedTuple):
    """The sums that describe a turn; arrays of one shape, float64."""

    weight_sq: FloatArray  # a = sum of w**2
    weight_update: FloatArray  # b = sum of w * d
    turn_sq: FloatArray  # sum of t**2

    @property
    def update_sq(self) -> FloatArray:
        """Sum of d**2, by Pythagoras."""
        return self.turn_sq + self.weight_update * _slope(*self[:2])


def angle(turning: Turning, numel: npt.ArrayLike) -> FloatArray:
    """Angle between a weight before and after an update, in radians.

    It is atan2(sqrt(a * sum t**2), a + b). From float32 sums its relative error
    is about 1e-6 at every size of the angle (tested down to 1e-7 rad, where an
    arccos of a float32 cosine is wrong from 3e-4 rad on), as long as the update
    does not run along the weight; an update that only scales the weight turns it
    by 0, and there float32 leaves up to 3e-7 times the update ratio.

    Args:
        turning: sums over the weights of a unit, a layer or a model.
        numel: number of weights; a single one can only stay (0) or change its
            sign (pi).

    Returns:
        Angles in [0, pi], the shape of the sums; NaN where the weight was zero.

    Source: Kosson et al. 2024, eq. 5, in a form that is stable for small angles.

    >>> sums = Turning(*map(np.float64, (1.0, 0.0, 1e-12)))
    >>> round(float(angle(sums, numel=2)), 15)
    1e-06
    """
    a, b, turn_sq = turning
    area = np.sqrt(a) * np.sqrt(turn_sq)
    single = np.equal(numel, 1)
    if single.any():
        area = np.where(single, 0.0, area)
    found: FloatArray = np.arctan2(area, a + b)
    return found if np.all(a) else np.where(a == 0, np.nan, found)


def combine(parts: Turning, members: Members) -> Turning:
    """Parts along the first axis, some of them at a time, as one weight each.

    Each part's t is at right angles to that part of w alone. What two parts'
    slopes b/a differ by turns the whole as well: with B/A the slope of all,
    sum t**2 of the whole is sum t**2 + sum a * (b/a - B/A)**2.

    Args:
        parts: sums of the parts.
        members: which parts make each weight.
    """
    whole = Turning(*(members.reduce(x) for x in parts))
    slopes = _slope(*whole[:2])
    for weights, (a, b) in members.blocks(*parts[:2]):
        differs = _slope(a, b)
        differs -= slopes[weights][:, None]
        differs *= differs
        differs *= a
        whole.turn_sq[weights] += differs.sum(axis=1)
    return whole


def combine_runs(
    parts: Turning, starts: npt.NDArray[np.intp], axis: int = -1
) -> Turning:
    """Runs of parts along an axis, each as one weight; see `combine`.

    Args:
        parts: sums of the parts.
        starts: where each run begins, increasing.
        axis: the axis of the parts.
    """
    a = np.add.reduceat(parts.weight_sq, starts, axis)
    b = np.add.reduceat(parts.weight_update, starts, axis)
    lengths = np.diff([*starts, parts.weight_sq.shape[axis]])
    common = np.repeat(_slope(a, b), lengths, axis)
    differs = _slope(*parts[:2])
    differs -= common
    differs *= differs
    np.multiply(parts.weight_sq, differs, out=differs)
    np.add(parts.turn_sq, differs, out=differs)
    return Turning(a, b, np.add.reduceat(differs, starts, axis))


def rejoin(summed: Turning, along_sq: FloatArray) -> Turning:
    """Units whose parts' sums have been added up, far from each other, as one weight.

    It is `combine` for who has no longer the parts: sum a * (b/a - B/A)**2 over them
    is sum b**2/a - B**2/A. In float64 the difference leaves 1e-8 of the update.

    Args:
        summed: sums of the parts' sums.
        along_sq: sum of the parts' b**2/a, what their updates have along the weight.
    """
    a, b, turn_sq = summed
    # as the parts' are taken, so that a unit of one part is left as it is
    whole_sq = np.divide(b * b, a, out=np.zeros_like(b), where=a != 0)
    # less than nothing is rounding; NaN stays
    return Turning(a, b, turn_sq + np.maximum(along_sq - whole_sq, 0))


def _slope(a: FloatArray, b: FloatArray) -> FloatArray:
    """Slope b/a, and 0 for a zero weight, whose update is all turn."""
    return np.divide(b, a, out=np.zeros_like(b), where=a != 0)
