import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dynoscope.theory import decoupled

decays = st.floats(1e-4, 0.99)


@given(decays, st.floats(0, 0.99), st.floats(1e-5, 10))
def test_equilibrium_is_the_fixed_point_of_the_averaged_step(
    decay: float, beta: float, lr: float
) -> None:
    """The moments of (w, u) for u_{t+1} = beta u_t + noise, in stationarity.

    With z = E<w, u'> for the next step's u', Yule-Walker gives
    z = beta (q z - lr U), and W = q^2 W - 2 q lr z + lr^2 U.
    """
    q, update_sq = 1 - decay, 3.0
    cross = -beta * lr * update_sq / (1 - beta * q)
    norm_sq = (lr**2 * update_sq - 2 * q * lr * cross) / (1 - q**2)
    new_cosine = (q * norm_sq - lr * cross) / norm_sq
    assume(new_cosine < 1 - 1e-5)  # nearer to 1, the slow arccos below has no digits
    total = np.asarray((1 + beta * q) / (1 - beta * q))
    arguments = total, np.asarray(lr), np.asarray(decay / lr)
    found = decoupled.weight_norm(np.asarray(update_sq), *arguments)
    assert found == pytest.approx(math.sqrt(norm_sq), rel=1e-9)
    found = decoupled.angular_update(*arguments)
    assert found == pytest.approx(math.acos(new_cosine), rel=1e-5)


@given(decays, st.floats(1e-5, 10))
def test_without_momentum_the_angle_is_arccos_q(decay: float, lr: float) -> None:
    found = decoupled.angular_update(
        np.asarray(1), np.asarray(lr), np.asarray(decay / lr)
    )
    q = 1 - lr * (decay / lr)
    assert found == pytest.approx(math.acos(q), rel=1e-9)


@pytest.mark.parametrize("decay", [1e-9, 1e-12, 1e-15])
def test_tiny_angles_keep_their_digits(decay: float) -> None:
    found = decoupled.angular_update(
        np.asarray(1), np.asarray(1e-6), np.asarray(decay / 1e-6)
    )
    assert found == pytest.approx(math.sqrt(2 * decay), rel=1e-9)


def test_half_life_halves_the_distance_of_the_squared_norm() -> None:
    lr, weight_decay = 1e-3, 0.5
    steps = float(decoupled.half_life(np.asarray(lr), np.asarray(weight_decay)))
    assert (1 - lr * weight_decay) ** (2 * steps) == pytest.approx(0.5, rel=1e-3)
