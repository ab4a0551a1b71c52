from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynoscope import open_run
from dynoscope.dashboard.rotation import Rotation
from dynoscope.recorder.journal import TableWriter
from dynoscope.schema.arrow import arrow_schema
from tests.dashboard.runs import LAYERS, WrittenRun


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("steps", [1, 10, 11, 237])
def test_buckets_are_plain_means(tmp_path: Path, steps: int, chunk: int) -> None:
    random = np.random.default_rng(steps)
    angle = random.lognormal(size=(steps, 3)).astype(np.float32)
    predicted = random.lognormal(size=(steps, 3)).astype(np.float32)
    predicted[:, 2] = np.nan
    angle[random.random(angle.shape) < 0.1] = np.nan
    at = 5 * np.arange(steps)  # measured every fifth step
    run = WrittenRun(tmp_path / "run")
    writer = TableWriter(run.path, "layers")
    rotation = None
    for i in range(0, steps, chunk):
        part = slice(i, i + chunk)
        writer.append(rows(at[part], angle[part], predicted[part]))
        if (i // chunk) % 50 == 20:
            writer.flush()
        rotation = rotation or Rotation(open_run(run.path), columns=10)
        rotation.track.poll()
    assert rotation is not None
    check(rotation, at, angle, predicted)
    check(Rotation(open_run(run.path), columns=10), at, angle, predicted)
    writer.abandon()


def check(
    rotation: Rotation, at: np.ndarray, angle: np.ndarray, predicted: np.ndarray
) -> None:
    first, last = rotation.steps
    assert len(first) <= 10
    ratio, measured = rotation.ratio(), rotation.measured()
    assert (first[0], last[-1]) == (0, at[-1])
    assert (first[1:] > last[:-1]).all()
    seen = 0
    for b, (low, high) in enumerate(zip(first, last, strict=True)):
        inside = (at >= low) & (at <= high)
        seen += int(inside.sum())
        for layer in range(3):
            a = angle[inside, layer].astype(float)
            p = predicted[inside, layer].astype(float)
            both = np.isfinite(a) & np.isfinite(p)
            known = a[np.isfinite(a)]
            mean = known.mean() if known.size else np.nan
            wanted = a[both].mean() / p[both].mean() if both.any() else np.nan
            np.testing.assert_allclose(measured[b, layer], mean, rtol=1e-12)
            np.testing.assert_allclose(ratio[b, layer], wanted, rtol=1e-12)
    assert seen == len(at)


def rows(at: np.ndarray, angle: np.ndarray, predicted: np.ndarray) -> list[pa.Array]:
    """Rows of `layers` with these angles; all else is of no interest."""
    given = {
        "step": np.repeat(at, 3),
        "layer": [layer.name for layer in LAYERS] * len(at),
        "angular_update": angle.ravel(),
        "pred_angular_update": predicted.ravel(),
    }
    return [
        pa.array(given.get(field.name, np.ones(3 * len(at)))).cast(field.type)
        for field in arrow_schema("layers")
    ]
