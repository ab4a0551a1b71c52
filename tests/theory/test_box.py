import numpy as np
import pytest
import torch

from dynoscope.optim import Lion
from dynoscope.theory import box

DECAY = 2.0


def excesses(gradient_of: str, lr: np.ndarray) -> list[float]:
    """Measured on Lion, from a weight of four times the allowed size."""
    noise = torch.Generator().manual_seed(0)
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    param = torch.nn.Parameter(start.clone())
    optimizer = Lion([param], lr=1e-2, weight_decay=DECAY)
    found = []
    for rate in [*lr, 0.0]:
        size = np.array(param.detach().abs().max().item())
        found.append(float(box.excess(size, np.array(DECAY))))
        outwards = -param.detach().sign()
        random = torch.randn(9, generator=noise, dtype=torch.float64)
        param.grad = outwards if gradient_of == "outwards" else random
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return found


def test_the_bound_is_attained_by_the_worst_gradients_and_kept_by_others() -> None:
    lr = 0.02 * (1 + np.cos(np.linspace(0, np.pi, 200)))
    bound = box.excess_bound(np.array(3.0), lr, np.array(DECAY))
    np.testing.assert_allclose(excesses("outwards", lr), bound, rtol=1e-9)
    random = np.array(excesses("random", lr))
    assert (random[1:] <= bound[1:]).all()
    assert (random[100:] < bound[100:] / 2).all()


def test_steps_until_are_the_first_that_suffice() -> None:
    lr = np.full(1000, 0.01)
    bound = box.excess_bound(np.array(3.0), lr, np.array(DECAY))
    needed = box.steps_until(
        np.array([0.01, 1.0, 5.0]), np.array(3.0), np.array(0.01), np.array(DECAY)
    )
    for steps, wanted in zip(needed.astype(int), (0.01, 1.0, 5.0), strict=True):
        assert bound[steps] <= wanted
        assert steps == 0 or bound[steps - 1] > wanted
    assert needed[2] == 0


def test_layers_and_edges() -> None:
    lr = np.full((3, 1), 0.1)
    found = box.excess_bound(np.array([0.0, 1.0]), lr, np.array([1.0, 0.0]))
    np.testing.assert_allclose(found, [[0, 1]] * 4)
    never = box.steps_until(
        np.array(0.01), np.array([0.0, 1.0]), np.array(0.1), np.array(0.0)
    )
    np.testing.assert_array_equal(never, [0, np.inf])
    assert box.excess(np.array(0.5), np.array(1.0)) == pytest.approx(0)
