"""The quick look promises bounds: held against exact distances, in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.diff.difference import Kind, distance
from dynoscope.diff.screen import screen

KINDS: tuple[Kind, ...] = ("ratio", "difference")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of some layers and steps, far apart, nearly equal, 0, huge, negative."""
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    a = np.exp(draw(st.sampled_from([0.1, 1.0, 20.0])) * random.normal(size=shape))
    b = a * np.exp(
        draw(st.sampled_from([0.0, 1e-7, 1e-3, 1.0])) * random.normal(size=a.shape)
    )
    if draw(st.booleans()):
        odd = random.choice([0.0, -1.0, 3e38, 1e-44], size=(2, *shape))
        chosen = random.random((2, *shape)) < 0.2
        a, b = (np.where(c, o, x) for c, o, x in zip(chosen, odd, (a, b), strict=True))
    return a.astype(dtype), b.astype(dtype)


def exact(kind: Kind, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = distance(kind, a.astype(np.float64), b.astype(np.float64))
    return np.nan_to_num(apart, nan=0.0, posinf=np.inf)


@given(st.sampled_from(KINDS), pairs())
def test_no_pair_is_beyond_the_most(
    kind: Kind, numbers: tuple[np.ndarray, np.ndarray]
) -> None:
    look = screen(kind, *numbers)
    assert (exact(kind, *numbers).max(axis=1) <= look.most).all()


@given(st.sampled_from(KINDS), pairs(), st.integers(0, 1 << 30))
def test_none_that_is_beyond_a_limit_is_passed_over(
    kind: Kind, numbers: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    a, b = numbers
    look, apart = screen(kind, a, b), exact(kind, a, b)
    known = np.flatnonzero(np.isfinite(look.most))
    random = np.random.default_rng(seed)
    layers = known[random.random(len(known)) < 0.7]
    # One of the distances is the limit: "just as far" is put to the test.
    limit = apart[layers, random.integers(a.shape[1], size=len(layers))]
    found = look.beyond(limit, layers)
    assert found.shape == (len(layers), a.shape[1])
    assert found[apart[layers] >= limit[:, None]].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_far_from_a_limit_is_told_from_it(dtype: type) -> None:
    a: np.ndarray = np.ones((1, 4)).astype(dtype)
    b: np.ndarray = np.array([[1.0, 1.05, 1.2, 0.8]]).astype(dtype)
    for kind, limit in zip(KINDS, (math.log(1.1), 0.1), strict=True):
        found = screen(kind, a, b).beyond(np.array([limit]), np.array([0]))
        assert found.tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_most_is_hardly_more_than_there_is(dtype: type) -> None:
    random = np.random.default_rng(0)
    a, b = np.exp(random.normal(size=(2, 5, 40))).astype(dtype)
    for kind in KINDS:
        apart = exact(kind, a, b).max(axis=1)
        np.testing.assert_allclose(screen(kind, a, b).most, apart, rtol=1e-5)


def test_equal_numbers_are_not_apart() -> None:
    a = np.exp(np.random.default_rng(0).normal(size=(3, 7)))
    for kind in KINDS:
        assert screen(kind, a, a).most.tolist() == [0.0, 0.0, 0.0]


def test_a_quick_look_does_not_say_where_a_ratio_means_nothing() -> None:
    a = np.array([[1.0, 1.0], [0.0, 1.0], [-1.0, 1.0], [1e-30, 1.0], [1.0, 2.0]])
    b = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [1e30, 1.0], [2.0, 2.0]])
    known = np.isfinite(screen("ratio", a, b).most)
    assert known.tolist() == [False, False, False, False, True]
