"""Angles from sums, against float64 geometry and exact rotations."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.measurement import Sum
from dynoscope.metrics.members import Members
from dynoscope.metrics.sums import Kernel, Spec
from dynoscope.metrics.turning import Turning, angle, combine, combine_runs, rejoin

SIZES = st.sampled_from([2, 3, 64, 5000, 300_001])


def measured(before: torch.Tensor, after: torch.Tensor) -> float:
    """The angle as the whole float32 path gives it."""
    parameter = torch.nn.Parameter(before.clone())
    kernel = Kernel([Spec(parameter)])
    kernel.before([None], [None], [np.inf])
    parameter.data.copy_(after)
    kernel.after([None], lambda: [None], [None])
    sums = kernel.ship()().sums
    turning = Turning(
        *(sums[s] for s in (Sum.WEIGHT_SQ, Sum.WEIGHT_UPDATE, Sum.TURN_SQ))
    )
    return float(angle(turning, before.numel())[0])


def true_angle(before: torch.Tensor, after: torch.Tensor) -> float:
    """Of the float32 vectors as they are, in float64, by half-angles."""
    u, v = (
        before.double() / before.double().norm(),
        after.double() / after.double().norm(),
    )
    return 2 * math.atan2(float((u - v).norm()), float((u + v).norm()))


@given(
    size=SIZES,
    exponent=st.floats(-6, 0),
    growth=st.floats(0.5, 2.0),
    seed=st.integers(0, 1000),
)
def test_float32_angles_are_right_down_to_a_microradian(
    size: int, exponent: float, growth: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(size, dtype=torch.float64, generator=generator)
    x = torch.randn(size, dtype=torch.float64, generator=generator)
    turn = x - w * (w @ x) / (w @ w)
    if turn.norm() < 1e-3 * x.norm():
        return
    theta = 10.0**exponent
    after = growth * (
        math.cos(theta) * w + math.sin(theta) * w.norm() / turn.norm() * turn
    )
    before32, after32 = w.float(), after.float()
    wanted = true_angle(before32, after32)
    ratio = float(
        (after32.double() - before32.double()).norm() / before32.double().norm()
    )
    assert measured(before32, after32) == pytest.approx(
        wanted, rel=1e-5, abs=3e-7 * ratio
    )


@pytest.mark.parametrize("theta", [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("size", [64, 4096, 1_000_000])
def test_a_rotation_by_theta_is_measured_as_theta(size: int, theta: float) -> None:
    before, after = torch.zeros(size), torch.zeros(size)
    before[::2] = 1.0
    after[::2] = math.cos(theta)
    after[1::2] = math.sin(theta)
    assert measured(before, after) == pytest.approx(theta, rel=1e-5)


def test_where_an_arccos_fails() -> None:
    before = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    after = before + 1e-6 * torch.randn(
        10_000, generator=torch.Generator().manual_seed(1)
    )
    wanted = true_angle(before, after)
    cosine = torch.nn.functional.cosine_similarity(before, after, dim=0)
    assert measured(before, after) == pytest.approx(wanted, rel=1e-5)
    assert float(torch.arccos(cosine.clamp(max=1))) != pytest.approx(wanted, rel=0.5)


def test_pure_decay_turns_nothing() -> None:
    before = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    after = before * (1 - 1e-3)  # rounds, and so turns by some 1e-8
    wanted = true_angle(before, after)
    assert wanted < 1e-7
    assert measured(before, after) == pytest.approx(wanted, abs=3e-7 * 1e-3)


def test_a_single_weight_stays_or_flips() -> None:
    assert measured(torch.tensor([0.3]), torch.tensor([0.7])) == 0.0
    assert measured(torch.tensor([0.3]), torch.tensor([-0.1])) == math.pi


def test_a_zero_weight_has_no_direction() -> None:
    assert math.isnan(measured(torch.zeros(5), torch.ones(5)))


@given(
    parts=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    blank=st.booleans(),
)
def test_parts_combine_exactly(parts: list[int], seed: int, blank: bool) -> None:
    rng = np.random.default_rng(seed)
    ws = [rng.normal(size=n) * 10.0 ** rng.integers(-3, 3) for n in parts]
    if blank:
        ws[0][:] = 0
    ds = [rng.normal(size=n) for n in parts]
    turnings = [turning_of(w, d) for w, d in zip(ws, ds, strict=True)]
    each = Turning(*(np.array(x) for x in zip(*turnings, strict=True)))
    wanted = turning_of(np.concatenate(ws), np.concatenate(ds))
    whole = Turning(*(x[0] for x in combine(each, Members([range(len(ws))]))))
    np.testing.assert_allclose(whole, wanted, rtol=1e-9)
    np.testing.assert_allclose(
        whole.update_sq, sum((d**2).sum() for d in ds), rtol=1e-9
    )
    runs = combine_runs(each, np.array([0]))
    np.testing.assert_allclose(np.squeeze(runs), wanted, rtol=1e-9)


def turning_of(w: np.ndarray, d: np.ndarray) -> Turning:
    a, b = float(w @ w), float(w @ d)
    turn = d - (b / a) * w if a else d
    return Turning(*map(np.asarray, (a, b, turn @ turn)))


PARTS = st.lists(
    st.tuples(st.floats(-8, 8), st.floats(-3, 3), st.floats(-20, 0), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(PARTS)
def test_parts_that_were_added_up_far_away(
    parts: list[tuple[float, float, float, bool]],
) -> None:
    """Against `combine`, which has the parts, over parts of all sizes and slopes."""
    a = np.array([10.0**size * (not empty) for size, _, _, empty in parts])
    b = a * np.array([slope for _, slope, _, _ in parts])
    turn_sq = np.array([10.0**turn for _, _, turn, _ in parts])
    along_sq = np.divide(b * b, a, out=np.zeros_like(b), where=a != 0)
    found = rejoin(
        Turning(*(x.sum(keepdims=True) for x in (a, b, turn_sq))),
        along_sq.sum(keepdims=True),
    )
    expected = combine(Turning(a, b, turn_sq), Members([range(len(parts))]))
    np.testing.assert_allclose(found.weight_sq, expected.weight_sq, 1e-14)
    rounding = 1e-15 * along_sq.sum()  # 3e-8 of the update
    np.testing.assert_allclose(found.turn_sq, expected.turn_sq, 1e-12, rounding)
    if len(parts) == 1:
        assert found.turn_sq[0] == turn_sq[0]


def test_what_is_no_number_stays_so() -> None:
    bad = np.array([np.nan, np.inf])
    with np.errstate(invalid="ignore"):  # as on the writer's thread
        assert np.isnan(rejoin(Turning(bad, bad, bad), bad).turn_sq).all()
