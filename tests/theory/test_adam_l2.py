import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.theory import adam_l2

positive = st.floats(1e-6, 1e3)


@given(st.integers(1, 10**6), positive, st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_norm_is_the_positive_root_of_the_cubic(
    numel: int, grad_sq: float, lr: float, weight_decay: float
) -> None:
    ratio = adam_l2.norm_ratio(
        np.asarray(numel), np.asarray(grad_sq), np.asarray(lr), np.asarray(weight_decay)
    )
    x = float(adam_l2.weight_norm(np.asarray(numel), np.asarray(lr), ratio)) ** 2
    left = 4 * weight_decay**2 * x**3
    right = numel * lr**2 * (weight_decay**2 * x**2 + grad_sq)
    assert left == pytest.approx(right, rel=1e-9)


@given(st.integers(1, 10**6), positive, st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_update_and_angle_are_the_printed_ones(
    numel: int, grad_sq: float, lr: float, weight_decay: float
) -> None:
    c, beta1 = np.asarray(numel), np.asarray(0.9)
    ratio = adam_l2.norm_ratio(
        c, np.asarray(grad_sq), np.asarray(lr), np.asarray(weight_decay)
    )
    x = float(adam_l2.weight_norm(c, np.asarray(lr), ratio)) ** 2
    decay_share = weight_decay**2 * x**2 / (grad_sq + weight_decay**2 * x**2)
    update_sq = lr**2 * numel * 0.1 / 1.9 * (1 - decay_share)
    # where the decay makes up all of v, what it leaves is a difference of ones
    precision = 1e-9 + 1e-14 / (1 - decay_share) if decay_share < 1 else 1
    rms = adam_l2.update_rms(c, np.asarray(lr), beta1, ratio)
    assert rms == pytest.approx(update_sq**0.5, rel=precision, abs=1e-7 * lr)
    angle = adam_l2.angular_update(beta1, ratio)
    assert angle == pytest.approx((update_sq / x) ** 0.5, rel=precision, abs=1e-7)


@pytest.mark.parametrize("weight_decay", [1e-3, 1e-2, 1e-1])
def test_half_life_is_that_of_the_recursion_of_the_norm(weight_decay: float) -> None:
    numel, lr, grad_sq = 64.0, 1e-3, 3e-4
    ratio = adam_l2.norm_ratio(
        np.asarray(numel), np.asarray(grad_sq), np.asarray(lr), np.asarray(weight_decay)
    )
    equilibrium = (
        float(adam_l2.weight_norm(np.asarray(numel), np.asarray(lr), ratio)) ** 2
    )
    x = 1.01 * equilibrium
    for _ in range(round(float(adam_l2.half_life(ratio)))):
        second_moment = (grad_sq / x + weight_decay**2 * x) / numel
        x += -2 * lr * weight_decay / np.sqrt(second_moment) * x + lr**2 * numel
    assert x / equilibrium - 1 == pytest.approx(0.005, rel=0.03)
