"""Bins of a histogram that fit every layer and step: fixed, signed and logarithmic.

Each power of two is split into four bins of equal width, on either side of zero, so
that no range has to be found first. The bin of a float32 is in its leading bits.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray

__all__ = [
    "BINS",
    "EDGES",
    "LARGEST",
    "SIDE",
    "SMALLEST",
    "SPLIT_BITS",
    "placed",
    "trimmed",
]

SMALLEST: Final = -40
"""Power of two below which a magnitude counts as zero."""

LARGEST: Final = 10
"""Power of two from which on a magnitude counts as infinite; NaN does too."""

SPLIT_BITS: Final = 2
"""Leading bits of the mantissa that tell the bins of one power of two apart."""

SIDE: Final = (LARGEST - SMALLEST) << SPLIT_BITS
"""Bins on each side, those at zero and at infinity aside."""

BINS: Final = 2 * SIDE + 3
"""All bins: from minus infinity, through zero, which is in the middle, to infinity."""


def _edges() -> FloatArray:
    split = 1 << SPLIT_BITS
    powers, parts = np.divmod(np.arange(SIDE + 1), split)
    positive = np.ldexp(1 + parts / split, powers + SMALLEST)
    return np.concatenate([[-np.inf], -positive[::-1], positive, [np.inf]])


EDGES: Final = _edges()
"""Edges of the bins, ascending, shape (BINS + 1,). A bin holds its edge that is
nearer to zero; the one in the middle holds neither."""


def trimmed(
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Counts and edges without the empty bins at both ends.

    Args:
        counts: shape (BINS,).

    Returns:
        The counts, and one edge more; of all zeros, nothing and a single edge.
    """
    filled = np.flatnonzero(counts)
    if not filled.size:
        return counts[:0], EDGES[:1]
    first, last = filled[0], filled[-1] + 1
    return counts[first:last], EDGES[first : last + 1]


def placed(counts: npt.NDArray[np.int64], edges: FloatArray) -> npt.NDArray[np.int64]:
    """What `trimmed` was given: all bins, so that layers and steps can be added up.

    Args:
        counts: shape (bins,).
        edges: shape (bins + 1,), a part of `EDGES`.

    Returns:
        Counts, shape (BINS,).
    """
    everywhere = np.zeros(BINS, np.int64)
    first = int(np.searchsorted(EDGES, edges[0]))
    everywhere[first : first + len(counts)] = counts
    return everywhere
