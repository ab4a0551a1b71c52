import numpy as np
import pytest
from numpy.typing import NDArray

from dynoscope.theory import sgdm


def update_weights(momentum: float, nesterov: bool) -> NDArray[np.float64]:
    """Share of each past gradient in an update, by running torch's recursion."""
    shares, buffer = [], 0.0
    for grad in [1.0] + [0.0] * 2000:
        buffer = momentum * buffer + grad
        shares.append(grad + momentum * buffer if nesterov else buffer)
    return np.array(shares)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9, 0.99])
def test_update_and_angle_follow_from_the_impulse_response(
    momentum: float, nesterov: bool
) -> None:
    lr, weight_decay, effective_grad_sq = 1e-3, 1e-2, 7.0
    shares = update_weights(momentum, nesterov)
    # one gradient's whole push against the decay's whole pull, to first order
    push, pull = lr * shares.sum(), lr * weight_decay * shares.sum()
    norm_sq = np.sqrt(push**2 * effective_grad_sq / (2 * pull))
    update_sq = lr**2 * (shares**2).sum() * effective_grad_sq / norm_sq
    hyper = np.asarray(lr), np.asarray(weight_decay), np.asarray(momentum)
    grad_sq, flag = np.asarray(effective_grad_sq), np.asarray(nesterov)
    assert sgdm.weight_norm(grad_sq, *hyper) == pytest.approx(norm_sq**0.5, rel=1e-9)
    assert sgdm.update_rms(grad_sq, *hyper, flag) == (
        pytest.approx(update_sq**0.5, rel=1e-9)
    )
    assert sgdm.angular_update(*hyper, flag) == (
        pytest.approx((update_sq / norm_sq) ** 0.5, rel=1e-4)
    )


def test_half_life_is_that_of_the_recursion_of_the_norm() -> None:
    lr, weight_decay, momentum, grad_sq = 1e-3, 1e-2, 0.9, 7.0
    hyper = np.asarray(lr), np.asarray(weight_decay), np.asarray(momentum)
    equilibrium = float(sgdm.weight_norm(np.asarray(grad_sq), *hyper)) ** 2
    push, pull = lr / (1 - momentum), lr * weight_decay / (1 - momentum)
    norm_sq = 1.01 * equilibrium
    for _ in range(round(float(sgdm.half_life(*hyper)))):
        norm_sq = (1 - pull) ** 2 * norm_sq + push**2 * grad_sq / norm_sq
    assert norm_sq / equilibrium - 1 == pytest.approx(0.005, rel=0.01)


def test_dampening_counts_only_with_momentum() -> None:
    lr = sgdm.effective_lr(np.asarray(0.1), np.array([0.0, 0.9]), np.asarray(0.5))
    np.testing.assert_allclose(lr, [0.1, 0.05])
