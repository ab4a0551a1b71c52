"""Overflows, counted from a real scaler's states."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.loss_scale import ScalerState, overflows


def states(
    pattern: list[bool], growth: float, backoff: float, interval: int, start: float
) -> list[ScalerState]:
    """States before each update of torch's own scaler, and after the last."""
    scale, streak = torch.tensor(start), torch.tensor(0, dtype=torch.int32)
    found = []
    for overflowed in [*pattern, False]:
        state = ScalerState(
            1, scale.item(), int(streak), growth, backoff, interval,
            overflowed=overflowed,
        )  # fmt: skip
        found.append(state)
        flag = torch.tensor(float(overflowed))
        torch._amp_update_scale_(scale, streak, flag, growth, backoff, interval)
    return found


PATTERNS = st.lists(st.booleans(), min_size=1, max_size=40)
FACTORS = st.sampled_from([(2.0, 0.5), (2.0, 0.25), (3.0, 0.5), (1.5, 0.9)])


def unfused(
    pattern: list[bool], of: list[ScalerState]
) -> list[tuple[int, ScalerState]]:
    """What an ordinary optimizer's hooks see, and when: not the overflows; the end."""
    return [
        (at, state._replace(overflowed=None))
        for at, state in enumerate(of)
        if at == len(pattern) or not pattern[at]
    ]


@settings(deadline=None)
@given(pattern=PATTERNS, factors=FACTORS, interval=st.integers(1, 6))
def test_every_step_seen_counts_every_overflow(
    pattern: list[bool], factors: tuple[float, float], interval: int
) -> None:
    of = states(pattern, *factors, interval, 2.0**10)
    # A fused optimizer's steps are seen all.
    found = [overflows(a, b, 1) for a, b in itertools.pairwise(of)]
    assert found == [int(overflowed) for overflowed in pattern]
    seen = unfused(pattern, of)
    after_first = pattern[pattern.index(False) :] if False in pattern else []
    pairs = itertools.pairwise(seen)
    total = sum(overflows(a, b, 1) for (_, a), (_, b) in pairs)
    assert total == sum(after_first)


@settings(deadline=None)
@given(
    pattern=PATTERNS,
    factors=FACTORS,
    interval=st.integers(1, 60),
    every=st.integers(2, 50),
)
def test_between_distant_steps_it_is_exact_or_the_fewest(
    pattern: list[bool], factors: tuple[float, float], interval: int, every: int
) -> None:
    of = states(pattern, *factors, interval, 2.0**10)
    seen = unfused(pattern, of)
    for (i, a), (j, b) in itertools.pairwise(seen[::every]):
        between = pattern[i:j]
        steps = len(between) - sum(between)
        found = overflows(a, b, steps)
        assert found <= sum(between)
        if a.streak + steps < interval or not any(between):
            assert found == sum(between)


@pytest.mark.parametrize("scale", [3.7, 1000.0, 0.0, float("nan"), float("inf")])
def test_a_scale_set_by_hand_counts_nothing(scale: float) -> None:
    before = ScalerState(1, 1024.0, 3, 2.0, 0.5, 100)
    assert overflows(before, before._replace(scale=scale), 1) == 0


def test_a_scale_that_cannot_grow_stays() -> None:
    of = states([False] * 5, 2.0, 0.5, 1, 2.0**127)
    assert [overflows(a, b, 1) for a, b in itertools.pairwise(of)] == [0] * 5
