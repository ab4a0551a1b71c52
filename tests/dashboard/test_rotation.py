import numpy as np
import pytest

from dynoscope.dashboard.rotation import Rotation


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
@pytest.mark.parametrize("steps", [1, 9, 10, 11, 237])
def test_buckets_are_plain_means(steps: int, chunk: int) -> None:
    random = np.random.default_rng(steps)
    angle = random.lognormal(size=(steps, 3))
    predicted = random.lognormal(size=(steps, 3))
    predicted[:, 2] = np.nan
    angle[random.random(angle.shape) < 0.1] = np.nan
    at = 5 * np.arange(steps)  # measured every fifth step
    rotation = Rotation(3, columns=10)
    for i in range(0, steps, chunk):
        part = slice(i, i + chunk)
        rotation.add({
            "step": at[part],
            "angular_update": angle[part],
            "pred_angular_update": predicted[part],
        })  # fmt: skip
    first, last = rotation.steps
    assert len(first) <= 10
    ratio, measured = rotation.ratio(), rotation.measured()
    assert (first[0], last[-1]) == (0, at[-1])
    for b, (low, high) in enumerate(zip(first, last, strict=True)):
        inside = slice(low // 5, high // 5 + 1)
        for layer in range(3):
            a, p = angle[inside, layer], predicted[inside, layer]
            both = np.isfinite(a) & np.isfinite(p)
            known = a[np.isfinite(a)]
            mean = known.mean() if known.size else np.nan
            wanted = a[both].mean() / p[both].mean() if both.any() else np.nan
            np.testing.assert_allclose(measured[b, layer], mean, rtol=1e-12)
            np.testing.assert_allclose(ratio[b, layer], wanted, rtol=1e-12)
