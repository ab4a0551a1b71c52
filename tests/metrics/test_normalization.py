"""Momentum tracing against a per-channel reading of its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.measurement import FloatArray
from dynoscope.metrics.normalization import (
    MomentumTracer,
    Traced,
    silence,
    top5_cos,
    weight_q95,
)


@pytest.mark.parametrize(
    ("k", "beta", "steps"),
    [(1, 0.99, 100), (2.5, 0.99, 250), (5, 0.99, 500), (2.5, 0.999, 2500), (1, 0, 1),
     (2.5, float("nan"), 3)],
)  # fmt: skip
def test_silence_is_exact(k: float, beta: float, steps: int) -> None:
    assert silence(k, beta) == steps


def by_definition(
    gradients: list[float], updates: list[float], weight: float, lr: float,
    decay: float, beta: float,
) -> dict[str, list[bool]]:  # fmt: skip
    """One channel, step by step, in words of the definition."""
    out: dict[str, list[bool]] = {
        k: [] for k in ("dead", "ghost", "revived", "revived_k1", "revived_k5")
    }
    zeros, had_gradient = 0, False
    for g, u in zip(gradients, updates, strict=True):
        for name, k in (("revived", 2.5), ("revived_k1", 1.0), ("revived_k5", 5.0)):
            long = zeros >= math.ceil(k / (1 - beta) - 1e-9)
            out[name].append(g != 0 and long)
        if g != 0:
            had_gradient, zeros = True, 0
        elif had_gradient:
            zeros += 1
        dead = zeros > 0
        out["dead"].append(dead)
        out["ghost"].append(dead and abs(u + decay * weight) > lr / 2)
    return out


@given(
    zeros=st.lists(
        st.lists(st.booleans(), min_size=30, max_size=30), min_size=1, max_size=4
    ),
    beta=st.sampled_from([0.0, 0.5, 0.8]),
    split=st.integers(0, 30),
    seed=st.integers(0, 99),
)
def test_counts_follow_the_definition(
    zeros: list[list[bool]], beta: float, split: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    silent = np.array(zeros)  # (channels, steps)
    gradients = np.where(silent, 0.0, rng.normal(size=silent.shape))
    updates = rng.normal(size=silent.shape) * 1e-3
    weights, lr, decay = rng.normal(size=len(silent)), 1e-3, 1e-4
    tracer = MomentumTracer(len(silent))
    # In two goes, so that what goes from one to the next counts.
    found = [
        tracer.update(
            steps, gradients.T[steps], np.tile(weights, (len(steps), 1)),
            updates.T[steps], lr=np.full((len(steps), 1), lr),
            decay=np.full((len(steps), 1), decay), beta=np.full((len(steps), 1), beta),
        ).masks
        for steps in np.split(np.arange(silent.shape[1]), [split])
        if steps.size
    ]  # fmt: skip
    for c in range(len(silent)):
        wanted = by_definition(
            [*gradients[c]], [*updates[c]], weights[c], lr, decay, beta
        )
        for name, column in wanted.items():
            masks = np.concatenate([part[name][:, c] for part in found])
            assert masks.tolist() == column, name


def test_steps_that_were_not_measured_count_as_silent() -> None:
    tracer = MomentumTracer(1)
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    settings = {"lr": one, "decay": zero, "beta": np.full((1, 1), 0.9)}

    def at(step: int, gradient: FloatArray) -> Traced:
        return tracer.update(np.array([step]), gradient, one, zero, **settings)

    assert at(0, one).silent.item() == 0
    assert at(10, zero).masks["dead"].all()
    assert tracer.silent.tolist() == [10]
    assert at(20, one).masks["revived_k1"].all()


@given(
    layers=st.integers(1, 3),
    channels=st.sampled_from([1, 7, 20, 21, 64]),
    seed=st.integers(0, 99),
)
def test_companions_follow_their_definition(
    layers: int, channels: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights, moved = rng.normal(size=(2, 5, layers, channels))
    quantiles, cosines = weight_q95(weights, moved), top5_cos(weights, moved)
    for index in np.ndindex(5, layers):
        ordered = sorted(zip(weights[index], moved[index], strict=True), key=size)
        sizes = [size(pair) for pair in ordered]
        low, share = divmod(0.95 * (channels - 1), 1)
        near = sizes[int(low)], sizes[min(int(low) + 1, channels - 1)]
        wanted = near[0] + share * (near[1] - near[0])
        assert quantiles[index] == pytest.approx(wanted)
        top = ordered[-math.ceil(channels / 20) :]
        product = sum(w * d for w, d in top)
        norms = math.hypot(*(w for w, _ in top)) * math.hypot(*(d for _, d in top))
        assert cosines[index] == pytest.approx(product / norms)


def size(pair: tuple[float, float]) -> float:
    return abs(pair[0])


def test_largest_weights_that_stay_have_no_cosine() -> None:
    assert np.isnan(top5_cos(np.ones((2, 8)), np.zeros((2, 8)))).all()
