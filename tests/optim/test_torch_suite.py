"""What torch's own test-suite asks of an optimizer's step, asked of ours.

torch's are the test case, with one copy of a class for every kind of device it sees,
the sweep over infos, the inputs and errors (see `suite`), `TensorTracker`, and the
tolerances of `assertEqual`. Its `test/test_optim.py` names the properties; the tests
are written for what our optimizers take. Not theirs to have: fused, capturable,
differentiable and sparse.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import (
    OptimizerErrorEnum,
    OptimizerInfo,
    TensorTracker,
)
from torch.testing._internal.common_utils import TestCase, set_default_dtype
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices
from torch.utils._python_dispatch import TorchDispatchMode

from tests.optim.suite import Regression, build, each, each_wide, plain, with_foreach


class Operators(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class TestSteps(TestCase):
    @each
    def test_errors(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for error in optim_info.optim_error_inputs_func(device, dtype):
            its_input = error.optimizer_error_input
            params = its_input.params
            if params is None:
                params = [Parameter(torch.randn(2, 3, device=device, dtype=dtype))]
            make = functools.partial(build, optim_info, params, **its_input.kwargs)
            expect = (
                self.assertWarnsRegex
                if issubclass(error.error_type, Warning)
                else self.assertRaisesRegex
            )
            with self.subTest(its_input.desc):
                if error.error_on == OptimizerErrorEnum.CONSTRUCTION_ERROR:
                    with expect(error.error_type, error.error_regex):
                        make()
                else:
                    optimizer = make()
                    with expect(error.error_type, error.error_regex):
                        optimizer.step()

    @each
    def test_goes_the_right_direction(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        schedules: list[list[Callable[[Optimizer], Any]]] = [
            [],
            *optim_info.scheduler_inputs,
        ]
        for kwargs in with_foreach(device, dtype, optim_info):
            for schedule in schedules:
                for contiguous in (True, False):
                    problem = Regression(device, dtype, contiguous=contiguous)
                    optimizer = build(optim_info, problem.params, **kwargs)
                    before = problem.loss()
                    after = problem.train(
                        optimizer, 20, [make(optimizer) for make in schedule]
                    )
                    with self.subTest(kwargs=str(kwargs), schedule=bool(schedule)):
                        if kwargs.get("maximize"):
                            self.assertGreater(after, before)
                        else:
                            self.assertLess(after, before)

    @each
    def test_goes_down_a_curved_valley(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        def rosenbrock(point: Tensor) -> Tensor:
            x, y = point.unbind()
            return (1 - x).square() + 100 * (y - x.square()).square()

        for kwargs in with_foreach(device, dtype, optim_info):
            point = Parameter(torch.tensor([1.5, 1.5], device=device, dtype=dtype))
            optimizer = build(optim_info, [point], **kwargs)
            first = rosenbrock(point).item()
            for _ in range(50):
                optimizer.zero_grad()
                rosenbrock(point).backward()
                optimizer.step()
            ascends = bool(kwargs.get("maximize"))
            with self.subTest(kwargs=str(kwargs)):
                self.assertEqual(rosenbrock(point).item() > first, ascends)

    @each
    def test_groups_have_their_own_lr(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            for scheduled in (False, True):
                problem = Regression(device, dtype)
                still = problem.bias.detach().clone()
                optimizer = build(
                    optim_info,
                    [
                        {"params": [problem.weight], "lr": 1e-3},
                        {"params": [problem.bias], "lr": 1e-30},
                    ],
                    **kwargs,
                )
                before = problem.loss()
                schedules = [StepLR(optimizer, 5), ReduceLROnPlateau(optimizer)]
                after = problem.train(optimizer, 20, schedules * scheduled)
                ascends = bool(kwargs.get("maximize"))
                with self.subTest(kwargs=str(kwargs), scheduled=scheduled):
                    self.assertEqual(problem.bias, still)
                    self.assertEqual(after > before, ascends)

    @each
    def test_groups_have_their_own_weight_decay(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            params = [
                Parameter(torch.ones(3, 2, device=device, dtype=dtype))
                for _ in range(2)
            ]
            optimizer = build(
                optim_info,
                [
                    {"params": params[:1], "weight_decay": 1.0},
                    {"params": params[1:], "weight_decay": 0.5},
                ],
                **kwargs,
            )
            for param in params:
                param.grad = torch.zeros_like(param)
            optimizer.step()
            lr = float(optimizer.param_groups[0]["lr"])
            with self.subTest(kwargs=str(kwargs)):
                self.assertEqual(params[0], torch.full_like(params[0], 1 - lr))
                self.assertEqual(params[1], torch.full_like(params[1], 1 - lr / 2))

    @each
    def test_a_tensor_lr_is_the_number_it_holds(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            number, *tensors = (Regression(device, dtype) for _ in range(3))
            lrs = (torch.tensor(0.01), torch.tensor([0.01]))
            runs = zip((number, *tensors), (lrs[0].item(), *lrs), strict=True)
            for problem, lr in runs:
                optimizer = build(optim_info, problem.params, **{**kwargs, "lr": lr})
                problem.train(optimizer, 5)
            for problem in tensors:
                with self.subTest(kwargs=str(kwargs)):
                    self.assertEqual(problem.params, number.params)

    @each_wide
    def test_foreach_matches_forloop(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in plain(device, optim_info):
            tracker = TensorTracker()
            for foreach in (False, True):
                problem = Regression(device, dtype)
                optimizer = build(optim_info, problem.params, foreach=foreach, **kwargs)
                for _ in range(7):
                    optimizer.step(problem.loss)
                    for tensor in tensors_of(optimizer, problem):
                        if foreach:
                            tracker.pop_check_set(tensor, self)
                        else:
                            tracker.add(tensor)
            self.assertTrue(tracker.all_popped())

    @each
    def test_the_default_dtype_changes_nothing(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problems = Regression(device, dtype), Regression(device, dtype)
            for problem, default in zip(
                problems, (torch.float32, torch.float64), strict=True
            ):
                with set_default_dtype(default):
                    optimizer = build(optim_info, problem.params, **kwargs)
                    problem.train(optimizer, 3)
            one, two = problems
            self.assertEqual(one.params, two.params, rtol=0, atol=0)

    @each
    def test_dtypes_mix(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
        for kwargs in plain(device, optim_info):
            both = []
            for foreach in (False, True):
                noise = torch.Generator().manual_seed(0)
                params = []
                for its_dtype in dtypes:
                    draw = torch.randn(2, 3, 4, generator=noise).to(device, its_dtype)
                    param = Parameter(draw[0])
                    param.grad = draw[1]
                    params.append(param)
                hyper = {**kwargs, "lr": 0.5, "foreach": foreach}
                build(optim_info, params, **hyper).step()
                both.append(params)
            with self.subTest(kwargs=str(kwargs)):
                self.assertEqual(both[0], both[1])

    @each
    def test_foreach_is_the_default_where_it_has_kernels(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        kernels = torch.device(device).type in _get_foreach_kernels_supported_devices()
        expected = kernels and torch.device(device).type != "cpu"
        problem = Regression(device, dtype)
        kwargs = next(plain(device, optim_info))
        optimizer = build(optim_info, problem.params, **kwargs)
        problem.loss()
        with Operators() as ran:
            optimizer.step()
        self.assertEqual("_foreach_mul_" in ran.names, expected)

    @each
    def test_complex_is_its_real_and_imaginary_parts(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            draw = functools.partial(
                torch.randn, 5, 4, device=device, dtype=torch.complex64
            )
            param = Parameter(draw())
            real = Parameter(torch.view_as_real(param.detach()).clone())
            optimizers = [
                build(optim_info, [each_param], **kwargs)
                for each_param in (param, real)
            ]
            for _ in range(3):
                param.grad = draw()
                real.grad = torch.view_as_real(param.grad)
                for optimizer in optimizers:
                    optimizer.step()
                with self.subTest(kwargs=str(kwargs)):
                    self.assertEqual(torch.view_as_real(param), real)

    @each
    def test_no_gradient_no_step(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem, untouched = Regression(device, dtype), Regression(device, dtype)
            frozen = Parameter(torch.ones(2, device=device), requires_grad=False)
            optimizer = build(optim_info, [*problem.params, frozen], **kwargs)
            optimizer.step()
            self.assertEqual(problem.params, untouched.params, rtol=0, atol=0)
            self.assertEqual(dict(optimizer.state), {})
            problem.train(optimizer, 1)
            self.assertNotEqual(problem.weight, untouched.weight)
            self.assertEqual(frozen, torch.ones_like(frozen), rtol=0, atol=0)

    @each
    def test_gradients_are_never_written_to(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem = Regression(device, dtype)
            optimizer = build(optim_info, problem.params, **kwargs)
            problem.loss()
            grads = [param.grad for param in problem.params if param.grad is not None]
            versions = [grad._version for grad in grads]
            optimizer.step()
            self.assertEqual([grad._version for grad in grads], versions)
            self.assertTrue(
                all(p.grad is g for p, g in zip(problem.params, grads, strict=True))
            )

    @each
    def test_zero_grad(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        problem = Regression(device, dtype)
        kwargs = next(plain(device, optim_info))
        optimizer = build(optim_info, problem.params, **kwargs)
        problem.loss()
        optimizer.zero_grad(set_to_none=False)
        for param in problem.params:
            self.assertEqual(param.grad, torch.zeros_like(param))
        optimizer.zero_grad()
        self.assertEqual([param.grad for param in problem.params], [None, None])

    @each
    def test_prints(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem = Regression(device, dtype)
            text = repr(build(optim_info, problem.params, **kwargs))
            for name in ("lr", "weight_decay", "foreach"):
                self.assertIn(f"{name}: ", text)


def tensors_of(optimizer: Optimizer, problem: Regression) -> list[Tensor]:
    """The weights, then all of the state in a fixed order."""
    state = (optimizer.state[param] for param in problem.params)
    return [
        *problem.params,
        *(value for its in state for _, value in sorted(its.items())),
    ]


instantiate_device_type_tests(TestSteps, globals())
