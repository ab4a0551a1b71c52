import numpy as np
import pytest

from dynoscope.optim import NormGD
from dynoscope.theory import equilibrium, normgd
from tests.systems import RandomWalk


@pytest.mark.parametrize(
    ("betas", "tolerance", "of_a_row"),
    [((0.0, 0.0), 5e-3, 0.03), ((0.9, 0.99), 0.02, 0.1)],
)
def test_rows_of_a_random_walk_share_the_norm_and_turn_alike(
    betas: tuple[float, float], tolerance: float, of_a_row: float
) -> None:
    lr, weight_decay = 1e-2, 0.5
    whole = equilibrium(
        "normgd", numel=1, lr=lr, weight_decay=weight_decay, betas=betas
    )
    system = RandomWalk()
    share = normgd.update_share(system.effective_grad_sq(), whole.weight_norm)
    system.rescale(whole.weight_norm * np.sqrt(share))
    walk = system.run(lambda params: NormGD(params, lr, betas, weight_decay)).settled()
    share = normgd.update_share(walk.effective_grad_sq.mean(axis=0), whole.weight_norm)
    norm = np.sqrt((walk.weight_norm**2).mean(axis=0) / share) / whole.weight_norm
    angle = np.sqrt((walk.angular_update**2).mean(axis=0)) / whole.angular_update
    for ratio in (norm, angle):
        assert ratio.mean() == pytest.approx(1, abs=tolerance)
        np.testing.assert_allclose(ratio, 1, atol=of_a_row)


def test_shares_are_the_fixed_point_of_their_own_step() -> None:
    """Each part's norm from its share, gradients from the norms, shares from these."""
    grad, whole_norm = np.array([3.0, 1.0, 0.2]), np.array([1.0, 2.0, 0.5])
    squares = whole_norm**2 / 3
    for _ in range(200):
        shares = grad**2 / squares / (grad**2 / squares).sum()
        squares = np.sqrt(squares * whole_norm**2 * shares)
    found = normgd.update_share(grad**2, whole_norm)
    np.testing.assert_allclose(found, shares, rtol=1e-9)


def test_parts_without_decay_or_gradient_take_nothing() -> None:
    found = normgd.update_share(
        np.array([4.0, 1.0, np.nan]), np.array([1.0, np.inf, 1.0])
    )
    np.testing.assert_array_equal(found, [1.0, 0.0, np.nan])
    assert np.isnan(normgd.update_share(np.ones(2), np.full(2, np.inf))).all()
