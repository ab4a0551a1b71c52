"""A run so far, in bounded memory: means over buckets of steps, and running totals."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray
from dynoscope.reader import Block
from dynoscope.schema import TABLES

__all__ = ["ChannelTotals", "History"]

BUCKETS: Final = 256
"""Most buckets; when they are full, neighbours merge."""

FEWEST: Final = 32
"""Buckets that even a model of very many layers has."""

BUDGET: Final = 32 << 20
"""Bytes that the buckets may take, where that leaves more than the fewest."""


class History:
    """Means of every column of `layers` over buckets of measured steps.

    A bucket is as many measured steps as any other, the newest one aside, which may
    still be filling. What is not a number is left out of a mean.

    Args:
        layers: how many there are.

    Attributes:
        measured: measured steps so far.
        last_step: the newest of them, -1 before the first.
        first_nonfinite: per layer, the first step with a NaN or an infinite entry,
            -1 where there is none.
    """

    def __init__(self, layers: int) -> None:
        self.columns = TABLES["layers"].names("measured", "predicted", "setting")
        self._at = {name: index for index, name in enumerate(self.columns)}
        shape = (len(self.columns), layers)
        most = BUDGET // (4 * max(len(self.columns) * layers, 1))
        self._most = int(np.clip(most, FEWEST, BUCKETS)) // 2 * 2
        self._means = np.empty((self._most, *shape), np.float32)
        self._starts = np.empty(self._most, np.int64)
        self._full, self._width = 0, 1
        self._sums, self._counts = np.zeros(shape), np.zeros(shape)
        self._open, self._open_start = 0, 0
        self.measured, self.last_step = 0, -1
        self.first_nonfinite = np.full(layers, -1, np.int64)

    def add(self, block: Block) -> None:
        """Take in measured steps, the newest last."""
        steps = block["step"]
        columns = [block[name] for name in self.columns]
        rows = np.stack(columns, axis=1, dtype=np.float64)
        self._note_nonfinite(steps, block["nonfinite"] > 0)
        at = 0
        while at < len(steps):
            taken = slice(at, at + self._width - self._open)
            if not self._open:
                self._open_start = int(steps[at])
            known = ~np.isnan(rows[taken])
            self._sums += np.where(known, rows[taken], 0.0).sum(axis=0)
            self._counts += known.sum(axis=0)
            self._open += len(steps[taken])
            at += len(steps[taken])
            if self._open == self._width:
                self._close()
        self.measured += len(steps)
        self.last_step = int(steps[-1])

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First step of each bucket, shape (buckets,)."""
        starts = self._starts[: self._full]
        return np.append(starts, self._open_start) if self._open else starts

    @property
    def spans(self) -> npt.NDArray[np.int64]:
        """Optimizer steps from each bucket to the next, shape (buckets,)."""
        return np.diff(self.starts, append=self.last_step + 1)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Measured steps in each bucket, shape (buckets,)."""
        full = np.full(self._full, self._width, np.int64)
        return np.append(full, self._open) if self._open else full

    def means(self, column: str) -> FloatArray:
        """Means of a column, shape (buckets, layers), NaN where nothing is known."""
        at = self._at[column]
        means = self._means[: self._full, at].astype(np.float64)
        if not self._open:
            return means
        return np.concatenate([means, self._open_mean()[None, at]])

    def _open_mean(self) -> FloatArray:
        with np.errstate(invalid="ignore"):
            mean: FloatArray = self._sums / self._counts
        return mean

    def _close(self) -> None:
        with np.errstate(over="ignore"):  # too large for float32 is infinite there
            self._means[self._full] = self._open_mean()
        self._starts[self._full] = self._open_start
        self._full += 1
        self._sums[:], self._counts[:], self._open = 0.0, 0.0, 0
        if self._full == self._most:
            self._merge()

    def _merge(self) -> None:
        first, second = self._means[::2], self._means[1::2]
        with np.errstate(over="ignore"):
            both = first / 2 + second / 2
        both = np.where(
            np.isnan(first), second, np.where(np.isnan(second), first, both)
        )
        self._full, self._width = self._most // 2, 2 * self._width
        self._means[: self._full] = both
        self._starts[: self._full] = self._starts[::2]

    def _note_nonfinite(
        self, steps: npt.NDArray[np.int64], found: npt.NDArray[np.bool_]
    ) -> None:
        new = found.any(axis=0) & (self.first_nonfinite < 0)
        self.first_nonfinite[new] = steps[found.argmax(axis=0)[new]]


class ChannelTotals:
    """Running totals of the table `normalization`.

    Args:
        names: names of the normalization layers.

    Attributes:
        names: the same.
        channels: per layer, how many it has.
        dead: channels that were dead when the layer was measured last.
        ghost: ghost steps so far.
        revived: revivals so far.
        first_ghost: step of the first ghost step, -1 where there was none.
        measured: per layer, measured steps so far.
    """

    def __init__(self, names: Sequence[str], channels: Sequence[int]) -> None:
        self.names, self.channels = tuple(names), np.array(channels, float)
        self.dead, self.ghost, self.revived = np.zeros((3, len(self.names)))
        self.first_ghost = np.full(len(self.names), -1, np.int64)
        self.measured = np.zeros(len(self.names), np.int64)

    @property
    def ghost_share(self) -> FloatArray:
        """Ghost steps per channel and measured step, shape (layers,)."""
        share: FloatArray = self.ghost / (self.channels * np.maximum(self.measured, 1))
        return share

    def add(self, block: Block) -> None:
        """Take in measured steps, the newest last."""
        ghost = np.nan_to_num(block["ghost"])
        if not len(ghost):
            return
        new = (ghost > 0).any(axis=0) & (self.first_ghost < 0)
        self.first_ghost[new] = block["step"][(ghost > 0).argmax(axis=0)[new]]
        self.ghost += ghost.sum(axis=0)
        self.revived += np.nansum(block["revived"], axis=0)
        is_there = ~np.isnan(block["dead"])
        last = len(ghost) - 1 - is_there[::-1].argmax(axis=0)
        newest = block["dead"][last, np.arange(len(self.names))].astype(np.float64)
        self.dead = np.where(is_there.any(axis=0), newest, self.dead)
        self.measured += is_there.sum(axis=0)
