import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer

from dynoscope.optim import Lion, OrtSepNorm, Rotational, SepNorm
from dynoscope.optim._turned_blocks import PER, Per
from tests.optim.layers import draw
from tests.systems import RandomWalk

Array = NDArray[np.float64]

INNER: dict[str, Callable[[list[Tensor]], Optimizer]] = {
    "adam": lambda params: Adam(params, lr=1e-2, weight_decay=0.5),
    "adamw": lambda params: AdamW(params, lr=1e-2, weight_decay=0.5),
    "lion": lambda params: Lion(params, 1e-3, weight_decay=1.0),
    "nesterov": lambda params: SGD(
        params, lr=0.1, momentum=0.9, weight_decay=5e-3, nesterov=True
    ),
    "sepnorm": lambda params: SepNorm(params, 1e-3, weight_decay=1.0),
    "sgd": lambda params: SGD(params, lr=0.1, weight_decay=5e-3),
    "sgdm": lambda params: SGD(params, lr=0.1, momentum=0.9, weight_decay=5e-3),
}
EACH = pytest.mark.parametrize("make", INNER.values(), ids=INNER)


def adamw_angle(lr: float, weight_decay: float, beta1: float) -> float:
    q = 1 - lr * weight_decay
    total = (1 + beta1 * q) / (1 - beta1 * q)
    return math.acos((1 + q * q - (1 - q * q) / total) / (2 * q))


class Transcription:
    """Algorithm 1 around AdamW, one block after the other, no centring."""

    def __init__(self, weight: Array, per: Per, beta: float, betas: Any) -> None:
        self.weight = weight.copy()
        self._per = per
        self._blocks = list(self.weight) if per == "row" else [self.weight]
        self._n = [np.linalg.norm(block) for block in self._blocks]
        self._nu = [0.0 for _ in self._blocks]
        self._beta, self._betas, self._t = beta, betas, 0
        self._m, self._v = np.zeros_like(weight), np.zeros_like(weight)

    def step(self, grad: Array, lr: float, weight_decay: float) -> None:
        (beta1, beta2), self._t = self._betas, self._t + 1
        self._m = beta1 * self._m + (1 - beta1) * grad
        self._v = beta2 * self._v + (1 - beta2) * grad**2
        root = np.sqrt(self._v / (1 - beta2**self._t)) + 1e-8
        update = -lr * self._m / (1 - beta1**self._t) / root
        eta_r = adamw_angle(lr, weight_decay, beta1)
        deltas = list(update) if self._per == "row" else [update]
        for i, (p, delta) in enumerate(zip(self._blocks, deltas, strict=True)):
            delta = delta / lr
            delta = delta - (delta * p).sum() / (p * p).sum() * p
            self._nu[i] = self._beta * self._nu[i] + (1 - self._beta) * (delta**2).sum()
            rms = np.sqrt(self._nu[i] / (1 - self._beta**self._t))
            p += eta_r * self._n[i] * delta / rms
            p *= self._n[i] / np.linalg.norm(p)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 4),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.sampled_from(PER),
    st.floats(0, 0.999),
    st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.999)),
    st.floats(1e-5, 0.1),
    st.floats(1e-3, 1),
)
def test_float64_transcription_of_algorithm_1(
    rows: int,
    rest: list[int],
    per: Per,
    beta: float,
    betas: tuple[float, float],
    lr: float,
    weight_decay: float,
) -> None:
    shape = (rows, 2, *rest)
    start = draw(*shape)
    param = Parameter(start.clone())
    optimizer = Rotational(
        AdamW([param], lr, betas, weight_decay=weight_decay),
        per=per,
        center=False,
        beta=beta,
    )
    expected = Transcription(start.numpy(), per, beta, betas)
    for step in range(50):
        param.grad = draw(*shape, seed=step + 1)
        optimizer.step()
        expected.step(param.grad.numpy(), lr, weight_decay)
        if step == 25:  # a schedule
            optimizer.param_groups[0]["lr"] = lr = lr / 3
    np.testing.assert_allclose(
        param.detach().numpy(), expected.weight, rtol=1e-8, atol=1e-8
    )


@EACH
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("per", PER)
def test_rotation_is_that_of_equilibrium(
    make: Callable[[list[Tensor]], Optimizer], per: Per, center: bool
) -> None:
    optimizers: list[Rotational] = []

    def rotational(params: list[Tensor]) -> Optimizer:
        optimizers.append(Rotational(make(params), per=per, center=center))
        return optimizers[0]

    # gradients that outweigh the L2 term of Adam
    system = RandomWalk(16, 256, even=True, loss_scale=1e4)
    walk = system.run(rotational, steps=900)
    (optimizer,) = optimizers
    eta_r = optimizer.rotation(optimizer.param_groups[0])
    share = walk.weight_norm**2 / (walk.weight_norm**2).sum(1, keepdims=True)
    whole = (share * walk.angular_update**2).sum(1)  # of small angles
    assert np.sqrt(whole[0]) == pytest.approx(eta_r, rel=0.01)
    assert np.sqrt(whole[600:].mean()) == pytest.approx(eta_r, rel=0.01)
    if per == "row":
        late = walk.angular_update[600:]
        assert walk.angular_update[0] == pytest.approx(eta_r, rel=0.01)
        assert np.sqrt((late**2).mean()) == pytest.approx(eta_r, rel=0.01)
        assert walk.weight_norm == pytest.approx(
            np.broadcast_to(walk.weight_norm[0], walk.weight_norm.shape), rel=1e-6
        )


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_without_memory_every_step_turns_alike(beta: float) -> None:
    walk = RandomWalk(8, 32).run(
        lambda params: Rotational(AdamW(params, 1e-3, weight_decay=0.1), beta=beta),
        steps=50,
    )
    spread = walk.angular_update.std(axis=0) / walk.angular_update.mean(axis=0)
    assert (spread < 1e-3).all() if beta == 0 else (spread > 0.01).all()


@pytest.mark.parametrize("make", [INNER["sgdm"], INNER["lion"], INNER["sepnorm"]])
def test_gradients_of_1e_minus_6_change_nothing(
    make: Callable[[list[Tensor]], Optimizer],
) -> None:
    moved = []
    for size in (1.0, 1e-6):
        param = Parameter(draw(8, 16, dtype=torch.float32))
        optimizer = Rotational(make([param]))
        for step in range(20):
            param.grad = size * draw(8, 16, seed=step + 1, dtype=torch.float32)
            optimizer.step()
        moved.append(param)
    torch.testing.assert_close(*moved, rtol=1e-4, atol=1e-6)


def test_a_schedule_enters_as_its_root() -> None:
    def turn(lr: float) -> float:
        param = Parameter(draw(8, 16))
        optimizer = Rotational(AdamW([param], weight_decay=0.1))
        optimizer.param_groups[0]["lr"] = lr
        before = param.detach().clone()
        param.grad = draw(8, 16, seed=1)
        optimizer.step()
        cos = torch.cosine_similarity(before, param.detach(), dim=1)
        return float(cos.arccos().mean())

    assert turn(4e-4) / turn(1e-4) == pytest.approx(2, rel=1e-3)


def test_lr_zero_stands_still_and_goes_on() -> None:
    param = Parameter(draw(8, 16))
    optimizer = Rotational(AdamW([param], lr=1e-2, weight_decay=0.1))
    before = param.detach().clone()
    for lr, still in ((0.0, True), (1e-2, False)):
        optimizer.param_groups[0]["lr"] = lr
        param.grad = draw(8, 16, seed=1)
        optimizer.step()
        assert torch.equal(param, before) is still
    assert param.isfinite().all()


class TestCentering:
    def test_constructor_centres_and_keeps_the_norm(self) -> None:
        start = draw(8, 16) + 0.5
        param = Parameter(start.clone())
        Rotational(AdamW([param], weight_decay=0.1))
        expected = start - start.mean(1, keepdim=True)
        expected *= start.norm(dim=1, keepdim=True) / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(param.detach(), expected)

    def test_weights_stay_centred(self) -> None:
        param = Parameter(draw(8, 16, dtype=torch.float32))
        optimizer = Rotational(AdamW([param], lr=1e-2, weight_decay=0.5))
        for step in range(200):
            param.grad = draw(8, 16, seed=step + 1, dtype=torch.float32) + 1
            optimizer.step()
        assert param.mean(1).abs().max() < 1e-6

    def test_weights_loaded_later_do_not_jump(self) -> None:
        param = Parameter(draw(8, 16))
        optimizer = Rotational(AdamW([param], lr=1e-4, weight_decay=0.1))
        with torch.no_grad():
            param.add_(1)
        before = param.detach().clone()
        param.grad = draw(8, 16, seed=1)
        optimizer.step()
        cos = torch.cosine_similarity(before, param.detach(), dim=1)
        eta_r = optimizer.rotation(optimizer.param_groups[0])
        assert cos.arccos().numpy() == pytest.approx(eta_r, rel=0.01)

    @pytest.mark.parametrize("shape", [(4, 2), (4, 1, 1, 2)])
    def test_blocks_with_no_circle_stay_uncentred(self, shape: tuple[int, ...]) -> None:
        param = Parameter(draw(*shape))
        optimizer = Rotational(AdamW([param], lr=1e-2, weight_decay=0.1))
        assert torch.equal(param, draw(*shape))
        param.grad = draw(*shape, seed=1)
        optimizer.step()
        assert not torch.isclose(param, draw(*shape)).any()

    def test_constant_rows_stay_uncentred(self) -> None:
        start = draw(4, 8, dtype=torch.float32)
        start[1] = 0.1
        param = Parameter(start.clone())
        optimizer = Rotational(AdamW([param], lr=1e-2, weight_decay=0.1))
        assert torch.equal(param[1], start[1])
        for step in range(5):
            param.grad = draw(4, 8, seed=step, dtype=torch.float32)
            optimizer.step()
        torch.testing.assert_close(param.norm(dim=1), start.norm(dim=1))
        assert not torch.isclose(param[1], start[1]).any()


class TestAngles:
    def turned(self, optimizer: Rotational, param: Parameter) -> Array:
        before = param.detach().clone()
        param.grad = draw(*param.shape, seed=1)
        optimizer.step()
        cos = torch.cosine_similarity(before, param.detach(), dim=1)
        return cos.arccos().numpy()

    def test_given_angle(self) -> None:
        param = Parameter(draw(8, 16))
        optimizer = Rotational(AdamW([param], weight_decay=0.0), eta_r=0.01)
        assert self.turned(optimizer, param) == pytest.approx(0.01, rel=1e-3)

    def test_angle_of_a_group(self) -> None:
        param = Parameter(draw(8, 16))
        optimizer = Rotational(
            AdamW([param], lr=0.2), eta_r=lambda group: group["lr"] / 10
        )
        assert self.turned(optimizer, param) == pytest.approx(0.02, rel=1e-3)

    def test_angle_for_an_unknown_optimizer(self) -> None:
        param = Parameter(draw(8, 16))
        optimizer = Rotational(torch.optim.Adagrad([param]), eta_r=0.01)
        assert self.turned(optimizer, param) == pytest.approx(0.01, rel=1e-3)

    def test_factor_of_every_row(self) -> None:
        param = Parameter(draw(8, 16))
        factors = torch.tensor([1.0, 10.0]).repeat(4)
        optimizer = Rotational(
            AdamW([param], weight_decay=0.0), eta_r=0.001, factor=lambda p: factors
        )
        expected = 0.001 * factors.numpy()
        assert self.turned(optimizer, param) == pytest.approx(expected, rel=1e-3)

    def test_adam_turns_by_the_angle_of_adamw(self) -> None:
        param = Parameter(draw(8, 16))
        group = {"params": [param], "lr": 1e-2, "weight_decay": 0.5}
        adam, adamw = Rotational(Adam([dict(group)])), Rotational(AdamW([dict(group)]))
        assert adam.rotation(adam.param_groups[0]) == adamw.rotation(
            adamw.param_groups[0]
        )

    def test_ort_sep_norm_turns_too(self) -> None:
        param = Parameter(draw(8, 16))
        optimizer = Rotational(OrtSepNorm([param], 1e-2, weight_decay=0.5))
        angle = math.acos(1 - 1e-2 * 0.5)
        assert self.turned(optimizer, param) == pytest.approx(angle, rel=0.01)


class TestProtocol:
    def test_loads_the_inner_optimizers_state(self) -> None:
        param = Parameter(draw(3, 4))
        inner = AdamW([param], lr=0.1, weight_decay=0.1)
        param.grad = draw(3, 4, seed=1)
        inner.step()
        optimizer = Rotational(AdamW([param], weight_decay=0.1))
        optimizer.load_state_dict(inner.state_dict())
        assert optimizer.param_groups[0]["lr"] == 0.1
        optimizer.step()
        assert optimizer.state[param]["step"] == 2

    def test_state_keeps_its_digits(self) -> None:
        param = Parameter(draw(3, 4, dtype=torch.bfloat16))
        optimizer = Rotational(AdamW([param], lr=0.1, weight_decay=0.1))
        param.grad = draw(3, 4, seed=1, dtype=torch.bfloat16)
        optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer.load_state_dict(saved)
        for name in ("rotation_norm", "rotation_mean_square", "rotation_mass"):
            assert torch.equal(optimizer.state[param][name], saved["state"][0][name])
            assert optimizer.state[param][name] is not saved["state"][0][name]

    def test_groups_added_later_turn(self) -> None:
        params = [Parameter(draw(3, 4) + 1), Parameter(draw(3, 4, seed=1) + 1)]
        optimizer = Rotational(AdamW([params[0]], lr=0.1, weight_decay=0.1))
        optimizer.add_param_group({"params": [params[1]], "lr": 0.2})
        assert params[1].mean(1).abs().max() < 1e-12
        assert len(optimizer.inner.param_groups) == 2
        for param in params:
            param.grad = draw(3, 4, seed=2)
        norms = [param.norm().item() for param in params]
        optimizer.step()
        assert [param.norm().item() for param in params] == pytest.approx(norms)

    @pytest.mark.parametrize("fused", [True, False])
    def test_fused_inner_optimizer(self, fused: bool) -> None:
        param = Parameter(draw(8, 16, dtype=torch.float32))
        inner = AdamW([param], lr=1e-2, weight_decay=0.5, fused=fused)
        optimizer = Rotational(inner)
        before = param.detach().clone()
        param.grad = draw(8, 16, seed=1, dtype=torch.float32)
        optimizer.step()
        cos = torch.cosine_similarity(before.double(), param.detach().double(), dim=1)
        eta_r = optimizer.rotation(optimizer.param_groups[0])
        assert cos.arccos().numpy() == pytest.approx(eta_r, rel=0.01)
