"""What every optimizer of the room must do as a `torch.optim.Optimizer`."""

import copy
import functools
import io
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

import dynoscope.optim
from dynoscope.optim import Huber, Lion, Threshold
from tests.optim.layers import MAKERS, PATHS, draw_gradients, parameters

EACH = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def train(
    make: Callable[..., Optimizer],
    params: list[Parameter],
    steps: int = 10,
    **hyper: Any,
) -> list[Parameter]:
    optimizer = make(params, **hyper)
    for step in range(steps):
        draw_gradients(params, seed=step + 1)
        optimizer.step()
    return params


def test_public_names_are_all() -> None:
    exported = dynoscope.optim.__all__
    defined = {
        name
        for name, value in vars(dynoscope.optim).items()
        if isinstance(value, type | FunctionType) and not name.startswith("_")
    }
    assert set(exported) == defined


@EACH
class TestPaths:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("maximize", [True, False])
    def test_foreach_agrees_with_the_plain_path(
        self, make: Callable[..., Optimizer], dtype: torch.dtype, maximize: bool
    ) -> None:
        both = [
            train(
                make,
                parameters(dtype),
                foreach=foreach,
                maximize=maximize,
                lr=0.01,
                weight_decay=0.1,
            )
            for foreach in (True, False)
        ]
        for left, right in zip(*both, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-8)

    @PATHS
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_16_bits_follow_float32(
        self, make: Callable[..., Optimizer], dtype: torch.dtype, foreach: bool | None
    ) -> None:
        low = parameters(dtype)
        draw_gradients(low, seed=2)  # of distinct sizes in 16 bits, too
        wide = [Parameter(param.detach().float()) for param in low]
        for param, other in zip(low, wide, strict=True):
            assert param.grad is not None
            other.grad = param.grad.float()
        # one step: later ones part where a coordinate crosses a sign
        for params in (low, wide):
            make(params, lr=0.5, weight_decay=0.1, foreach=foreach).step()
        for param, expected in zip(low, wide, strict=True):
            assert param.dtype == dtype
            torch.testing.assert_close(param.float(), expected, rtol=0.02, atol=0.01)

    @PATHS
    def test_mixed_dtypes_and_missing_gradients(
        self, make: Callable[..., Optimizer], foreach: bool | None
    ) -> None:
        params = [*parameters(), *parameters(torch.float64), *parameters()]
        draw_gradients(params, seed=1)
        params[0].grad = None
        before = params[0].detach().clone()
        optimizer = make(params, lr=0.1, foreach=foreach)
        optimizer.step()
        assert params[0] not in optimizer.state
        assert torch.equal(params[0], before)
        assert all(param.isfinite().all() for param in params)

    @PATHS
    @pytest.mark.filterwarnings("ignore:a weight .* is all zeros")  # Rotational
    @pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-20, 1e20, 3e38])
    def test_finite_input_never_gives_nan(
        self, make: Callable[..., Optimizer], foreach: bool | None, size: float
    ) -> None:
        for weight_size in (0.0, 1e-45, 1e-38, 1e-15, 1.0, 1e30):
            params = [Parameter(weight_size * param.sign()) for param in parameters()]
            optimizer = make(params, lr=0.1, weight_decay=0.1, foreach=foreach)
            for _ in range(2):
                for param in params:
                    param.grad = torch.full_like(param, size)
                    if param.ndim > 1 and param.numel():
                        param.grad[0] = 0  # a zero row
                optimizer.step()
            assert all(param.isfinite().all() for param in params)

    @PATHS
    def test_a_gradient_of_any_size_moves_alike(
        self, make: Callable[..., Optimizer], foreach: bool | None
    ) -> None:
        if isinstance(make, functools.partial) and isinstance(
            make.keywords.get("k"), Threshold | Huber
        ):
            pytest.skip("these K are made to see the size of a gradient")
        moved = []
        for size in (1.0, 2.0**-60):  # a power of two, which rounds nothing
            params = parameters()
            optimizer = make(params, lr=0.1, foreach=foreach)
            draw_gradients(params, seed=1)
            for param in params:
                assert param.grad is not None
                param.grad *= size
            optimizer.step()
            moved.append(params)
        for left, right in zip(*moved, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@EACH
class TestProtocol:
    def test_nothing_to_do(self, make: Callable[..., Optimizer]) -> None:
        params = parameters()
        make(params).step()
        for param, start in zip(params, parameters(), strict=True):
            assert torch.equal(param, start)

    def test_maximize_is_descent_on_the_negative(
        self, make: Callable[..., Optimizer]
    ) -> None:
        params, mirrored = parameters(), parameters()
        draw_gradients(params, seed=1)
        for param, mirror in zip(params, mirrored, strict=True):
            assert param.grad is not None
            mirror.grad = -param.grad
        gradients = [param.grad for param in params]
        make(params, lr=0.1, maximize=True).step()
        make(mirrored, lr=0.1).step()
        for param, mirror, grad in zip(params, mirrored, gradients, strict=True):
            assert torch.equal(param, mirror)
            assert param.grad is grad

    @PATHS
    def test_state_dict_round_trip_continues_the_same_run(
        self, make: Callable[..., Optimizer], foreach: bool | None
    ) -> None:
        params = parameters()
        optimizer = make(params, lr=0.01, weight_decay=0.1, foreach=foreach)
        draw_gradients(params, seed=1)
        optimizer.step()
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        saved.seek(0)
        resumed = copy.deepcopy(params)
        other = make(resumed, lr=1.0)
        other.load_state_dict(torch.load(saved))  # weights_only: nothing of ours
        for run, its_params in ((optimizer, params), (other, resumed)):
            draw_gradients(its_params, seed=2)
            run.step()
        for param, copied in zip(params, resumed, strict=True):
            assert torch.equal(param, copied)

    def test_deep_copy_continues_the_same_run(
        self, make: Callable[..., Optimizer]
    ) -> None:
        params = parameters()
        optimizer = make(params, lr=0.01, weight_decay=0.1)
        draw_gradients(params, seed=1)
        optimizer.step()
        # one deepcopy, so that the copy holds the copied parameters
        copied, its_params = copy.deepcopy((optimizer, params))
        for run, run_params in ((optimizer, params), (copied, its_params)):
            draw_gradients(run_params, seed=2)
            run.step()
        for param, other in zip(params, its_params, strict=True):
            assert torch.equal(param, other)

    def test_closure_runs_with_gradients_and_its_loss_comes_back(
        self, make: Callable[..., Optimizer]
    ) -> None:
        param = Parameter(torch.arange(1.0, 13.0))
        optimizer = make([param], lr=0.1)

        def closure() -> float:
            optimizer.zero_grad()
            loss = param.square().sum()
            loss.backward()
            return loss.item()

        assert optimizer.step(closure) == 650.0
        assert not torch.equal(param, torch.arange(1.0, 13.0))

    @PATHS
    def test_tensor_lr_is_the_number_it_holds(
        self, make: Callable[..., Optimizer], foreach: bool | None
    ) -> None:
        number = train(make, parameters(), 2, lr=0.25, foreach=foreach)
        tensor = train(make, parameters(), 2, lr=torch.tensor([0.25]), foreach=foreach)
        for left, right in zip(number, tensor, strict=True):
            assert torch.equal(left, right)

    def test_scheduler_moves_lr(self, make: Callable[..., Optimizer]) -> None:
        params = parameters()
        optimizer = make(params, lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0**step)
        for step in range(2):
            before = [param.detach().clone() for param in params]
            draw_gradients(params, seed=step + 1)
            optimizer.step()
            schedule.step()
        # lr is 1 at the first step and 0 at the second
        for param, old in zip(params, before, strict=True):
            assert torch.equal(param, old)

    def test_hooks_fire_once_a_step(self, make: Callable[..., Optimizer]) -> None:
        params = parameters()
        calls: list[str] = []
        for maker in (Lion, make):  # a sibling exists already
            optimizer = maker(params)
            optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
            optimizer.register_step_post_hook(lambda *_: calls.append("post"))
        draw_gradients(params, seed=1)
        optimizer.step()
        assert calls == ["pre", "post"]

    @PATHS
    def test_channels_last_is_a_matter_of_memory_alone(
        self, make: Callable[..., Optimizer], foreach: bool | None
    ) -> None:
        start = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        plain = [Parameter(start.clone())]
        last = [Parameter(start.clone().to(memory_format=torch.channels_last))]
        train(make, plain, 3, lr=0.1, foreach=foreach)
        train(make, last, 3, lr=0.1, foreach=foreach)
        torch.testing.assert_close(plain[0], last[0], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("foreach", [True, False])
    def test_traces_into_one_graph(
        self, make: Callable[..., Optimizer], foreach: bool
    ) -> None:
        torch.compiler.reset()
        params, reference = parameters(), parameters()
        optimizer = make(params, lr=0.25, weight_decay=0.1, foreach=foreach)
        plain = make(reference, lr=0.25, weight_decay=0.1, foreach=False)
        compiled = torch.compile(optimizer.step, backend="eager")
        draw_gradients(params, seed=1)
        draw_gradients(reference, seed=1)
        compiled()
        plain.step()
        for param, expected in zip(params, reference, strict=True):
            torch.testing.assert_close(param, expected)


@EACH
class TestBadInput:
    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"lr": 0.0}, "lr must be positive.*leave out"),
            ({"lr": -1.0}, "lr must be positive.*maximize"),
            ({"lr": math.nan}, "lr must be positive and finite"),
            ({"lr": torch.ones(2)}, "one element, got 2"),
            ({"betas": (1.0, 0.99)}, "betas must be two numbers in"),
            ({"betas": (0.9, -0.1)}, "betas must be two numbers in"),
            ({"betas": (0.9,)}, "betas must be two numbers in"),
            ({"weight_decay": -0.1}, "weight_decay must be finite and >= 0"),
        ],
    )
    def test_hyperparameters_out_of_range(
        self, make: Callable[..., Optimizer], bad: dict[str, Any], message: str
    ) -> None:
        param = Parameter(torch.zeros(9))
        with pytest.raises(ValueError, match=message):
            make([param], **bad)
        optimizer = make([param])
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group({"params": [Parameter(torch.zeros(9))], **bad})
        assert len(optimizer.param_groups) == 1

    @PATHS
    @pytest.mark.filterwarnings("ignore:a weight .* is all zeros")  # Rotational
    def test_sparse_gradient(
        self, make: Callable[..., Optimizer], foreach: bool | None
    ) -> None:
        param = Parameter(torch.zeros(5, 2))
        param.grad = torch.ones(5, 2).to_sparse()
        with pytest.raises(RuntimeError, match=r"shape \(5, 2\).*sparse=False"):
            make([param], foreach=foreach).step()


@EACH
def test_complex_counts_as_two_reals(make: Callable[..., Optimizer]) -> None:
    noise = torch.Generator().manual_seed(0)
    start, grad = torch.randn(2, 6, 5, 2, generator=noise)
    real = Parameter(start.clone())
    complex_ = Parameter(torch.view_as_complex(start.clone()))
    real.grad, complex_.grad = grad, torch.view_as_complex(grad)
    for param in (real, complex_):
        make([param], lr=0.1, weight_decay=0.1).step()
    result: Tensor = torch.view_as_real(complex_)
    torch.testing.assert_close(result, real)
