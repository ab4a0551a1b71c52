"""What was logged, by name; and dynoscope's own cost, which is logged, too."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.reader import Overview, Piece, Run

__all__ = ["COST", "Cost", "Logged"]

COST: Final = "dynoscope/hook_seconds"
"""The scalar that holds what the hooks cost the training thread."""


NEAR: Final = 64
"""Steps at either end of a run in which its times are looked for."""


class Cost:
    """What the hooks cost the training thread, over the run so far."""

    def __init__(self) -> None:
        self._seconds, self._steps = 0.0, 0
        self._began, self._ended = np.inf, -np.inf

    def add(self, seconds: float, steps: int) -> None:
        """Add what so many measured steps cost together."""
        self._seconds += seconds
        self._steps += steps

    def note(self, wall_time: np.ndarray) -> None:
        """Take note of when measured steps ended."""
        if len(wall_time):
            self._began = min(self._began, float(wall_time.min()))
            self._ended = max(self._ended, float(wall_time.max()))

    @property
    def per_step(self) -> float | None:
        """Mean seconds per measured step; None before the first one."""
        return self._seconds / self._steps if self._steps else None

    @property
    def share(self) -> float | None:
        """Share of the time from the first measured step to the last one."""
        elapsed = self._ended - self._began
        return self._seconds / elapsed if elapsed > 0 else None


class Logged:
    """Which names were logged, and what the hooks cost.

    Args:
        run: the run.

    Attributes:
        names: in no order.
        cost: the cost.
    """

    cost: Cost
    names: set[str]

    def __init__(self, run: Run) -> None:
        beside = ["wall_time"]
        first, _, self._cursor = run.follow(
            self._begin, ["value"], points=1, table="scalars", beside=beside
        )
        if first is not None and COST in self.names:
            # Times are not in levels: those of the first and last step are read.
            for step in (first, (run.last_step or 0) - NEAR):
                ends = run.rows("scalars", beside, [COST], (step, step + NEAR + 1))
                self.cost.note(ends["wall_time"].to_numpy())
        self.poll()

    def _begin(self, pieces: Iterable[Piece], _: int) -> int | None:
        """Take in what was there before; the first step, if there is any."""
        self.cost, self.names = Cost(), set()
        starts: list[int] = []
        for piece in pieces:
            if isinstance(piece, pa.Table):
                self._add(piece)
                starts += [pc.min(piece["step"]).as_py()] if len(piece) else []
            else:
                self._add_levels(piece["value"])
                starts += piece["value"].step[:1].tolist()
        return min(starts, default=None)

    @property
    def problems(self) -> list[str]:
        """What could not be read."""
        return list(self._cursor.problems.values())

    def poll(self) -> bool:
        """Take in what is new; whether there was anything."""
        rows = self._cursor.poll()
        of_cost = self._add(rows)
        self.cost.note(of_cost["wall_time"].to_numpy())
        return len(rows) > 0

    def _add(self, rows: pa.Table) -> pa.Table:
        """Take in rows; those of the cost."""
        self.names.update(pc.unique(rows["name"]).to_pylist())
        of_cost = rows.filter(pc.equal(rows["name"], COST))
        self.cost.add(float(of_cost["value"].to_numpy().sum()), len(of_cost))
        return of_cost

    def _add_levels(self, coarse: Overview) -> None:
        self.names.update(coarse.names)
        if COST in coarse.names:
            known = coarse.count[:, coarse.names.index(COST)]
            mean = coarse.mean[:, coarse.names.index(COST)]
            self.cost.add(float(np.nansum(mean * known)), int(known.sum()))
