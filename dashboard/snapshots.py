"""A run's histograms at a few steps, in bounded memory."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.metrics.histograms import BINS, placed

__all__ = ["MOST", "Snapshots"]

MOST: Final = 16
"""Steps whose histograms are kept beside the newest."""


class Snapshots:
    """Histograms of all layers, of every `stride`-th recorded step and the newest.

    They are recorded at steps that grow apart, and so are those that are kept.

    Attributes:
        stride: histograms recorded for one that is kept; a power of two.
    """

    def __init__(self) -> None:
        self.stride, self._seen = 1, 0
        self._kept: dict[int, tuple[int, pa.Table]] = {}  # step: number, rows

    def __len__(self) -> int:
        """Steps that are kept."""
        return len(self._kept)

    @property
    def last(self) -> int | None:
        """The newest step; None before the first."""
        return max(self._kept, default=None)

    def add(self, rows: pa.Table) -> None:
        """Take in new rows of the `histograms` table, whole steps of them."""
        for step in pc.unique(rows["step"]).to_pylist():
            self._make_room()
            of_step = rows.filter(pc.equal(rows["step"], step))
            self._kept[step] = (self._seen, of_step)
            self._seen += 1

    def spread(self, count: int) -> list[int]:
        """Steps as far apart as they can be, ascending, the newest among them."""
        steps = sorted(self._kept)
        if not steps:
            return []
        back = np.linspace(0, len(steps) - 1, min(count, len(steps)))
        return [steps[-1 - i] for i in back.round().astype(int)][::-1]

    def counts(
        self, step: int, layers: Sequence[str], quantity: str
    ) -> npt.NDArray[np.int64]:
        """Elements of these layers in each bin, shape (BINS,); zeros if none.

        Args:
            step: one of `spread`.
            layers: names; bins are the same for all, so that counts add up.
            quantity: `weight` or `gradient`.
        """
        is_asked = (pc.field("quantity") == quantity) & pc.field("layer").isin(layers)
        rows = self._kept[step][1].filter(is_asked)
        total = np.zeros(BINS, np.int64)
        for counts, edges in zip(rows["counts"], rows["edges"], strict=True):
            total += placed(counts.values.to_numpy(), edges.values.to_numpy())
        return total

    def _make_room(self) -> None:
        """Drop a step that was kept only as the newest, and others if too many."""
        self._keep_multiples()
        if len(self._kept) > MOST:
            self.stride *= 2
            self._keep_multiples()

    def _keep_multiples(self) -> None:
        self._kept = {
            step: (number, rows)
            for step, (number, rows) in self._kept.items()
            if number % self.stride == 0
        }
