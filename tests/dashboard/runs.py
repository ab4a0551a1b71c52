"""A run that is written row by row, without a training behind it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dynoscope.dashboard.state import RunState
from dynoscope.measurement import Channels, Layer, OptimizerInfo, Subject
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.manifest import Manifest
from dynoscope.schema.arrow import arrow_schema

LAYERS = (
    Layer("a.weight", (4, 6), "float32", "Linear", 0, rows=4),
    Layer("a.bias", (4,), "float32", "Linear", 0, rows=0),
    Layer("b.norm.bias", (8,), "float32", "BatchNorm1d", 0, rows=0),
)


class WrittenRun:
    """Writes random rows, as the recorder would; every call is one batch."""

    def __init__(
        self, path: Path, *, predicted: bool = True, norm: bool = True
    ) -> None:
        self.path, self.steps = path, 0
        path.mkdir(parents=True)
        kind, reason = ("adamw", "") if predicted else (None, "Mystery is unknown")
        info = OptimizerInfo("AdamW", (kind,), (reason,), True, ({"lr": 0.1},))
        channels = (Channels("b.norm.bias", "BatchNorm1d", 8, 2),) if norm else ()
        self.manifest = Manifest.create(path, Subject("Net", LAYERS, channels, info), {
            "config": {}, "every": 1,
        })  # fmt: skip
        self.manifest.write()
        self._predicted, self._norm = predicted, norm
        self._random = np.random.default_rng(0)
        self._writers: dict[str, TableWriter] = {}

    def write(self, steps: int) -> None:
        at = np.arange(self.steps, self.steps + steps)
        names = [layer.name for layer in LAYERS]
        self._append("layers", at, names)
        self._append("neurons", at, names[:1])
        self._append("groups", at, None)
        if self._norm:
            self._append("normalization", at, names[2:])
        self._append("scalars", at, None, name="loss")
        self._append("scalars", at, None, name="dynoscope/hook_seconds")
        self.steps += steps

    def flush(self) -> None:
        """Turn journals into parts."""
        for writer in self._writers.values():
            writer.flush()

    def end(self, status: str = "finished", exception: str | None = None) -> None:
        self.flush()
        self.manifest.content.update(status=status, exception=exception, ended=1.0)
        self.manifest.write()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.abandon()

    def _append(
        self, table: str, at: np.ndarray, layers: list[str] | None, name: str = ""
    ) -> None:
        width = len(layers or [0])
        count = len(at) * width
        columns = []
        for field in arrow_schema(table):
            values = self._random.lognormal(size=count)
            if field.name in ("step", "own_step"):
                values = np.repeat(at, width)
            elif field.name == "wall_time":
                values = np.repeat(at, width) * 0.5
            elif field.name == "numel":
                values = np.tile([layer.numel for layer in LAYERS], len(at))
            elif field.name == "group":
                values = np.zeros(count)
            elif field.name.startswith("pred_") and not self._predicted:
                values = np.full(count, np.nan)
            elif field.name.endswith("cos"):
                values = np.tanh(values - 1)
            elif field.name == "nonfinite":
                values = np.zeros(count)
            elif field.name == "unmoved_share":
                values = np.full(count, 0.25)
            if pa.types.is_string(field.type):
                texts = [name] * count if name else (layers or []) * len(at)
                columns.append(pa.array(texts, field.type))
            else:
                columns.append(pa.array(values).cast(field.type, safe=False))
        writer = self._writers.setdefault(table, TableWriter(self.path, table))
        writer.append(columns)


def columns_of(
    state: RunState, layer: str, columns: Sequence[str] = ("weight_norm",)
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps and columns of a layer or roll-up, as a state holds them."""
    held = state.held("layers", layer, columns)
    (steps, *others) = (each.steps for each in held.values())
    assert all(np.array_equal(steps, other) for other in others)
    return steps, {name: each.buckets.mean for name, each in held.items()}
