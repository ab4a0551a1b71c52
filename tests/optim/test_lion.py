import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import lion_pytorch
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from dynoscope.optim import Lion
from tests.optim.layers import PATHS, draw_gradients, parameters


def train(
    make: Callable[[list[Parameter]], torch.optim.Optimizer],
    *,
    steps: int = 50,
    dtype: torch.dtype = torch.float32,
) -> tuple[list[Parameter], list[Tensor]]:
    """The weights and momenta after some steps on fixed random gradients."""
    params = parameters(dtype)
    optimizer = make(params)
    for step in range(steps):
        draw_gradients(params, seed=step + 1)
        optimizer.step()
    return params, [optimizer.state[param]["exp_avg"] for param in params]


def assert_same_bits(
    left: tuple[list[Parameter], list[Tensor]],
    right: tuple[list[Parameter], list[Tensor]],
) -> None:
    for ours, theirs in zip(
        itertools.chain(*left), itertools.chain(*right), strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


class TestRecursion:
    @PATHS
    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
    )
    @pytest.mark.parametrize("weight_decay", [0.0, 0.3])
    @pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98), (0.0, 0.5)])
    def test_bit_identical_to_lion_pytorch(
        self,
        foreach: bool | None,
        dtype: torch.dtype,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        hyper: dict[str, Any] = {
            "lr": 3e-3,
            "betas": betas,
            "weight_decay": weight_decay,
        }
        assert_same_bits(
            train(lambda params: Lion(params, foreach=foreach, **hyper), dtype=dtype),
            train(lambda params: lion_pytorch.Lion(params, **hyper), dtype=dtype),
        )

    @settings(deadline=None, max_examples=25)
    @given(
        st.lists(st.integers(0, 4), max_size=4),
        st.floats(1e-6, 1),
        st.floats(0, 0.9),
        st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
        st.booleans(),
        st.booleans(),
    )
    def test_float64_transcription(
        self,
        shape: list[int],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        maximize: bool,
        foreach: bool,
    ) -> None:
        noise = np.random.default_rng(0)
        weight = np.asarray(noise.standard_normal(shape))
        momentum: NDArray[np.float64] = np.zeros(shape)
        param = Parameter(torch.tensor(weight))
        optimizer = Lion(
            [param], lr, betas, weight_decay, maximize=maximize, foreach=foreach
        )
        beta1, beta2 = betas
        for _ in range(50):
            grad = np.asarray(noise.standard_normal(shape))
            param.grad = torch.tensor(grad)
            optimizer.step()
            grad = -grad if maximize else grad
            direction = np.sign(beta1 * momentum + (1 - beta1) * grad)
            weight = weight - lr * (direction + weight_decay * weight)
            momentum = beta2 * momentum + (1 - beta2) * grad
        np.testing.assert_allclose(param.detach(), weight, rtol=1e-9, atol=1e-12)

    def test_maximize_is_descent_on_the_negative(self) -> None:
        param, mirrored = Parameter(torch.ones(3)), Parameter(torch.ones(3))
        optimizer = Lion([param], maximize=True)
        mirror = Lion([mirrored])
        param.grad = torch.tensor([1.0, -2.0, 0.0])
        mirrored.grad = -param.grad
        optimizer.step()
        mirror.step()
        assert torch.equal(param, mirrored)
        assert torch.equal(param.grad, torch.tensor([1.0, -2.0, 0.0]))

    @PATHS
    def test_complex_counts_as_two_reals(self, foreach: bool | None) -> None:
        start, grad = torch.randn(4, 2), torch.randn(4, 2)
        real = Parameter(start.clone())
        complex_ = Parameter(torch.view_as_complex(start.clone()))
        real.grad, complex_.grad = grad, torch.view_as_complex(grad)
        for param in (real, complex_):
            Lion([param], lr=0.1, weight_decay=0.1, foreach=foreach).step()
        assert torch.equal(torch.view_as_real(complex_), real)

    def test_a_zero_gradient_and_momentum_only_decay(self) -> None:
        param = Parameter(torch.tensor([2.0]))
        param.grad = torch.zeros(1)
        Lion([param], lr=0.1, weight_decay=0.5).step()
        assert param.item() == pytest.approx(1.9)


class TestOptimizerProtocol:
    @PATHS
    def test_mixed_dtypes_and_missing_gradients(self, foreach: bool | None) -> None:
        params = [
            *parameters(),
            *parameters(torch.float64),
            *parameters(torch.bfloat16),
        ]
        draw_gradients(params, seed=1)
        params[0].grad = None
        before = [param.detach().clone() for param in params]
        optimizer = Lion(params, lr=0.1, foreach=foreach)
        optimizer.step()
        assert params[0] not in optimizer.state
        assert torch.equal(params[0], before[0])
        for param, old in zip(params[1:], before[1:], strict=True):
            expected = old - 0.1 * param.grad.sign()  # type: ignore[union-attr]
            torch.testing.assert_close(param.detach(), expected)

    def test_nothing_to_do(self) -> None:
        param = Parameter(torch.ones(2))
        Lion([param]).step()
        assert torch.equal(param, torch.ones(2))

    def test_groups_use_their_own_hyperparameters(self) -> None:
        one, two = Parameter(torch.ones(1)), Parameter(torch.ones(1))
        optimizer = Lion([{"params": [one], "lr": 0.25}], lr=0.5)
        optimizer.add_param_group({"params": two})
        one.grad = two.grad = torch.ones(1)
        optimizer.step()
        assert (one.item(), two.item()) == (0.75, 0.5)

    @PATHS
    def test_state_dict_round_trip_continues_the_same_run(
        self, foreach: bool | None
    ) -> None:
        params = parameters()
        optimizer = Lion(params, lr=0.01, weight_decay=0.1, foreach=foreach)
        draw_gradients(params, seed=1)
        optimizer.step()
        resumed = copy.deepcopy(params)
        other = Lion(resumed, lr=1.0)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for run, its_params in ((optimizer, params), (other, resumed)):
            draw_gradients(its_params, seed=2)
            run.step()
        for param, copied in zip(params, resumed, strict=True):
            assert torch.equal(param, copied)

    def test_state_of_lion_pytorch_loads(self) -> None:
        params = parameters()
        theirs = lion_pytorch.Lion(params, lr=0.01)
        draw_gradients(params, seed=1)
        theirs.step()
        continued = copy.deepcopy(params)
        ours = Lion(continued)
        ours.load_state_dict(theirs.state_dict())
        for run, its_params in ((theirs, params), (ours, continued)):
            draw_gradients(its_params, seed=2)
            run.step()
        for param, copied in zip(params, continued, strict=True):
            assert torch.equal(param, copied)

    def test_closure_runs_with_gradients_and_its_loss_comes_back(self) -> None:
        param = Parameter(torch.tensor([3.0]))
        optimizer = Lion([param], lr=1.0)

        def closure() -> float:
            optimizer.zero_grad()
            loss = param.square().sum()
            loss.backward()
            return loss.item()

        assert optimizer.step(closure) == 9.0
        assert param.item() == 2.0

    def test_scheduler_moves_lr(self) -> None:
        param = Parameter(torch.zeros(1))
        optimizer = Lion([param], lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        for _ in range(3):
            param.grad = torch.ones(1)
            optimizer.step()
            schedule.step()
        assert param.item() == -1.75

    @PATHS
    def test_tensor_lr_is_read_at_every_step(self, foreach: bool | None) -> None:
        lr = torch.tensor([0.5])
        param = Parameter(torch.zeros(2))
        optimizer = Lion([param], lr=lr, foreach=foreach)
        for value in (0.5, 0.25):
            lr.fill_(value)
            param.grad = torch.ones(2)
            optimizer.step()
        assert torch.equal(param, torch.full((2,), -0.75))

    def test_hooks_fire_once_a_step(self) -> None:
        param, calls = Parameter(torch.zeros(1)), []
        param.grad = torch.ones(1)
        optimizer = Lion([param])
        optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
        optimizer.register_step_post_hook(lambda *_: calls.append("post"))
        optimizer.step()
        assert calls == ["pre", "post"]

    def test_momentum_keeps_the_memory_format(self) -> None:
        param = Parameter(torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last))
        param.grad = torch.randn_like(param)
        optimizer = Lion([param])
        optimizer.step()
        assert optimizer.state[param]["exp_avg"].stride() == param.stride()

    @PATHS
    @pytest.mark.parametrize("lr", [0.25, torch.tensor(0.25)])
    def test_traces_into_one_graph(
        self, foreach: bool | None, lr: float | Tensor
    ) -> None:
        params = parameters()
        optimizer = Lion(params, lr=lr, weight_decay=0.1, foreach=foreach)
        reference = copy.deepcopy(params)
        plain = Lion(reference, lr=0.25, weight_decay=0.1, foreach=False)
        compiled = torch.compile(optimizer.step, backend="eager")
        for seed in (1, 2):
            draw_gradients(params, seed)
            draw_gradients(reference, seed)
            compiled()
            plain.step()
        for param, expected in zip(params, reference, strict=True):
            torch.testing.assert_close(param, expected)


class TestBadInput:
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"lr": 0.0}, "lr must be positive"),
            ({"lr": -1.0}, "lr must be positive"),
            ({"lr": math.nan}, "lr must be positive"),
            ({"lr": math.inf}, "lr must be positive and finite"),
            ({"lr": torch.ones(2)}, "one element, got 2"),
            ({"betas": (1.0, 0.99)}, "betas must be two numbers in"),
            ({"betas": (0.9, -0.1)}, "betas must be two numbers in"),
            ({"betas": (0.9, math.nan)}, "betas must be two numbers in"),
            ({"betas": (0.9,)}, "betas must be two numbers in"),
            ({"weight_decay": -0.1}, "weight_decay must be finite and >= 0"),
            ({"weight_decay": math.nan}, "weight_decay must be finite and >= 0"),
        ],
    )
    def test_hyperparameters_out_of_range(
        self, bad: dict[str, Any], message: str
    ) -> None:
        param = Parameter(torch.zeros(1))
        with pytest.raises(ValueError, match=message):
            Lion([param], **bad)
        with pytest.raises(ValueError, match=message):
            Lion([{"params": [param], **bad}])
        optimizer = Lion([param])
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group({"params": [Parameter(torch.zeros(1))], **bad})
        assert len(optimizer.param_groups) == 1

    @PATHS
    def test_sparse_gradient(self, foreach: bool | None) -> None:
        param = Parameter(torch.zeros(3, 2))
        param.grad = torch.ones(3, 2).to_sparse()
        with pytest.raises(RuntimeError, match=r"shape \(3, 2\).*sparse=False"):
            Lion([param], foreach=foreach).step()
