"""Mixed precision: every optimizer with torch's GradScaler, on each device there is.

See `suite` for what is torch's.
"""

import copy
from typing import Any

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import OptimizerInfo
from torch.testing._internal.common_utils import TestCase

from tests.optim.suite import Regression, build, each, with_foreach


class Scaled(Regression):
    """The regression, its steps taken through a scaler that grows every third one."""

    def __init__(self, device: str, scale: float) -> None:
        super().__init__(device)
        kind = torch.device(device).type
        self.scaler = GradScaler(kind, init_scale=scale, growth_interval=3)

    def step(
        self, optimizer: Optimizer, clip: float | None = None, *, overflow: bool = False
    ) -> None:
        optimizer.zero_grad()
        scaled: Any = self.scaler.scale(self.value())
        scaled.backward()
        assert self.weight.grad is not None
        if overflow:
            self.weight.grad[0, 0] = torch.inf
        if clip is not None:
            self.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.params, clip)
        self.scaler.step(optimizer)
        self.scaler.update()


class TestScaler(TestCase):
    def assert_alike(
        self, run: Optimizer, problem: Regression, other: Optimizer, its: Regression
    ) -> None:
        """Weights and state agree in every bit."""
        self.assertEqual(problem.params, its.params, rtol=0, atol=0)
        state, its_state = (o.state_dict()["state"] for o in (run, other))
        self.assertEqual(state, its_state, rtol=0, atol=0)

    @each
    def test_powers_of_two_change_no_bit(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            for clip in (None, 0.5):
                scaled, problem = Scaled(device, 2.0**16), Regression(device)
                optimizer, plain = (
                    build(optim_info, each_problem.params, **kwargs)
                    for each_problem in (scaled, problem)
                )
                for _ in range(7):
                    scaled.step(optimizer, clip)
                    problem.loss()
                    if clip is not None:
                        torch.nn.utils.clip_grad_norm_(problem.params, clip)
                    plain.step()
                    self.assert_alike(optimizer, scaled, plain, problem)
                self.assertEqual(scaled.scaler.get_scale(), 2.0**18)

    @each
    def test_an_overflow_is_as_if_the_step_had_never_been(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            scaled, problem = Scaled(device, 2.0**16), Regression(device)
            optimizer, plain = (
                build(optim_info, each_problem.params, **kwargs)
                for each_problem in (scaled, problem)
            )
            for step in range(6):
                before = copy.deepcopy((scaled.params, optimizer.state_dict()))
                scale = scaled.scaler.get_scale()
                scaled.step(optimizer, overflow=step in (0, 3))
                if step in (0, 3):
                    after = scaled.params, optimizer.state_dict()
                    self.assertEqual(after, before, rtol=0, atol=0)
                    self.assertEqual(scaled.scaler.get_scale(), scale / 2)
                else:
                    plain.step(problem.loss)
                    self.assert_alike(optimizer, scaled, plain, problem)

    @each
    def test_a_scale_too_large_falls_until_it_fits(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            scaled, problem = Scaled(device, 2.0**127), Regression(device)
            optimizer = build(optim_info, scaled.params, **kwargs)
            steps = 0
            while not optimizer.state and steps < 128:
                self.assertEqual(scaled.params, problem.params, rtol=0, atol=0)
                scaled.step(optimizer)
                steps += 1
            self.assertEqual(scaled.scaler.get_scale(), 2.0 ** (128 - steps))
            self.assertGreater(steps, 1)
            self.assertNotEqual(scaled.weight, problem.weight)


instantiate_device_type_tests(TestScaler, globals())
