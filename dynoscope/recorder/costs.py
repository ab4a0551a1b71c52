"""What recording costs: added up in the manifest, and logged step by step."""

import time
from collections.abc import Sequence

from dynoscope.measurement import Measurement, Work
from dynoscope.recorder.manifest import Manifest
from dynoscope.recorder.sealing import Sealing

__all__ = ["Costs"]

ScalarRow = tuple[int, float, str, float]


class Costs:
    """Keeps account; all methods are for the writer thread, `work` for any.

    Args:
        manifest: of the run, whose `progress` has the sums.
        sealer: merges the run's files, on a thread of its own, if there is one.

    Attributes:
        work: what other threads than the training's have done in this process.
    """

    def __init__(self, manifest: Manifest, sealer: Sealing | None) -> None:
        self._manifest, self._sealer = manifest, sealer
        self.work = Work(0.0, 0)
        self._told = self._counted = 0.0  # background seconds, in rows and manifest
        self._now = time.monotonic()

    def done(self, measurements: int) -> None:
        """Measurements have been dealt with, and time has passed."""
        seconds = time.thread_time()
        if self._sealer is not None:
            seconds += self._sealer.seconds
        self.work = Work(seconds, self.work.taken + measurements)
        now, sums = time.monotonic(), self._sums
        sums["elapsed"] += now - self._now
        sums["background"] += seconds - self._counted
        self._now, self._counted = now, seconds

    def rows(self, batch: Sequence[Measurement]) -> list[ScalarRow]:
        """Rows of the scalars that say what these measurements have cost."""
        rows: list[ScalarRow] = []
        sums = self._sums
        for m in batch:
            costs = {"hooks": m.hook_seconds, "device": m.device_seconds}
            for name, seconds in costs.items():
                sums[name] += seconds
            rows.append((m.step, m.wall_time, "dynoscope/hook_seconds", m.hook_seconds))
            if m.device_seconds:
                name = "dynoscope/device_seconds"
                rows.append((m.step, m.wall_time, name, m.device_seconds))
        if batch:
            since, self._told = self.work.seconds - self._told, self.work.seconds
            name = "dynoscope/background_seconds"
            rows.append((batch[-1].step, batch[-1].wall_time, name, since))
        return rows

    @property
    def _sums(self) -> dict[str, float]:
        sums: dict[str, float] = self._manifest.content["progress"]["seconds"]
        return sums
