"""What torch's own test-suite asks of an optimizer's state, copies and hooks.

See `test_torch_suite`, which asks the same of its step, for what is torch's in it.
"""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import OptimizerInfo
from torch.testing._internal.common_utils import TestCase

from tests.optim.suite import Regression, build, each, on_cuda, plain, with_foreach


class TestState(TestCase):
    def assert_continues(
        self, run: Optimizer, problem: Regression, other: Optimizer, its: Regression
    ) -> None:
        """Both take the same steps from here, in weights and in state."""
        for _ in range(5):
            run.step(problem.loss)
            other.step(its.loss)
            self.assertEqual(problem.params, its.params, rtol=0, atol=0)
        state, its_state = (o.state_dict()["state"] for o in (run, other))
        self.assertEqual(state, its_state, rtol=0, atol=0)

    @each
    def test_a_state_dict_continues_the_run(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem, resumed = Regression(device, dtype), Regression(device, dtype)
            optimizer = build(optim_info, problem.params, **kwargs)
            problem.train(optimizer, 5)
            resumed.copy_from(problem)
            other = build(optim_info, resumed.params, **kwargs)
            saved = copy.deepcopy(optimizer.state_dict())
            given = copy.deepcopy(saved)
            other.load_state_dict(given)
            self.assertEqual(given, saved)  # loading writes to nothing of it
            self.assert_continues(optimizer, problem, other, resumed)
            self.assertEqual(other.state_dict(), optimizer.state_dict())
            # groups that are there twice look alike
            other.param_groups.extend(other.param_groups)
            groups = other.state_dict()["param_groups"]
            self.assertEqual(groups[-1], optimizer.state_dict()["param_groups"][-1])

    @each
    def test_a_state_dict_is_saved_and_loaded_with_weights_only(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem = Regression(device, dtype)
            optimizer = build(optim_info, problem.params, **kwargs)
            problem.train(optimizer, 3)
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
            file.seek(0)
            loaded = torch.load(file, weights_only=True)
            self.assertEqual(loaded, optimizer.state_dict(), rtol=0, atol=0)

    @each
    def test_a_state_dict_without_newer_flags_loads(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in plain(device, optim_info):
            if kwargs.get("maximize"):
                continue  # an older version could not have known
            problem, resumed = Regression(device, dtype), Regression(device, dtype)
            optimizer = build(optim_info, problem.params, **kwargs)
            problem.train(optimizer, 3)
            resumed.copy_from(problem)
            older = copy.deepcopy(optimizer.state_dict())
            for group in older["param_groups"]:
                for flag in optim_info.not_og_supported_flags:
                    del group[flag]
            other = build(optim_info, resumed.params, **kwargs)
            other.load_state_dict(older)
            self.assert_continues(optimizer, problem, other, resumed)

    @each
    def test_names_come_and_go_with_a_state_dict(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in plain(device, optim_info):
            for named, its_named in ((True, False), (False, True), (True, True)):
                problem, resumed = Regression(device, dtype), Regression(device, dtype)
                optimizer = build(
                    optim_info, problem.named if named else problem.params, **kwargs
                )
                problem.train(optimizer, 3)
                resumed.copy_from(problem)
                other = build(
                    optim_info, resumed.named if its_named else resumed.params, **kwargs
                )
                state = copy.deepcopy(optimizer.state_dict())
                names = state["param_groups"][0].get("param_names")
                self.assertEqual(names, ["weight", "bias"] if named else None)
                other.load_state_dict(state)
                self.assert_continues(optimizer, problem, other, resumed)

    @each
    @on_cuda
    def test_a_state_dict_of_the_host_loads_on_the_device(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem, resumed = Regression("cpu", dtype), Regression(device, dtype)
            optimizer = build(optim_info, problem.params, **kwargs)
            problem.train(optimizer, 3)
            resumed.copy_from(problem)
            other = build(optim_info, resumed.params, **kwargs)
            other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            for _ in range(5):
                optimizer.step(problem.loss)
                other.step(resumed.loss)
            self.assertEqual([p.cpu() for p in resumed.params], problem.params)

    @each
    def test_there_is_a_state(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        for kwargs in with_foreach(device, dtype, optim_info):
            problem = Regression(device, dtype)
            optimizer = build(optim_info, problem.params, **kwargs)
            problem.train(optimizer, 1)
            for param in problem.params:
                self.assertGreater(len(optimizer.state[param]), 0)

    @each
    def test_copies_and_pickles_continue_the_run(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        def pickled(pair: Any) -> Any:
            return pickle.loads(pickle.dumps(pair))

        for kwargs in with_foreach(device, dtype, optim_info):
            for copied in (copy.deepcopy, pickled):
                problem = Regression(device, dtype)
                optimizer = build(optim_info, problem.params, **kwargs)
                problem.train(optimizer, 3)
                other, its = copied((optimizer, problem))
                self.assertEqual(public(other), public(optimizer))
                self.assert_continues(optimizer, problem, other, its)


class TestHooks(TestCase):
    def optimizer(self, device: str, its_info: OptimizerInfo) -> Optimizer:
        problem = Regression(device)
        problem.loss()
        kwargs = next(plain(device, its_info))
        return build(its_info, problem.params, **kwargs)

    @each
    def test_around_a_step(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        optimizer = self.optimizer(device, optim_info)
        calls: list[str] = []

        def note(name: str) -> Callable[..., None]:
            def hook(stepping: Optimizer, *_: Any) -> None:
                if stepping is optimizer:  # and not one inside of it
                    calls.append(name)

            return hook

        handles = [
            register_optimizer_step_pre_hook(note("all pre")),
            register_optimizer_step_post_hook(note("all post")),
            optimizer.register_step_pre_hook(note("pre")),
            optimizer.register_step_post_hook(note("post")),
            optimizer.register_step_pre_hook(note("pre 2")),
        ]
        optimizer.step()
        self.assertEqual(calls, ["all pre", "pre", "pre 2", "post", "all post"])
        for handle in handles:
            handle.remove()
        optimizer.step()
        self.assertEqual(len(calls), 5)

    @each
    def test_before_a_step_may_change_its_arguments(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        optimizer = self.optimizer(device, optim_info)
        optimizer.register_step_pre_hook(
            lambda optimizer, args, kwargs: (args, {**kwargs, "closure": lambda: 7.0})
        )
        self.assertEqual(optimizer.step(), 7.0)

    @each
    def test_around_a_state_dict(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        optimizer, calls = self.optimizer(device, optim_info), []
        optimizer.register_state_dict_pre_hook(lambda _: calls.append("pre"))
        optimizer.register_state_dict_post_hook(
            lambda _, state: {**state, "note": "from a hook"}
        )
        self.assertEqual(optimizer.state_dict()["note"], "from a hook")
        self.assertEqual(calls, ["pre"])

    @each
    def test_around_loading_a_state_dict(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        optimizer, seen = self.optimizer(device, optim_info), []

        def scale(factor: float) -> Callable[[Optimizer, Any], Any]:
            def hook(_: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
                groups = copy.deepcopy(state["param_groups"])
                groups[0]["lr"] = groups[0]["lr"] * factor + factor
                return {**state, "param_groups": groups}

            return hook

        optimizer.register_load_state_dict_pre_hook(scale(2.0))
        optimizer.register_load_state_dict_pre_hook(scale(10.0), prepend=True)
        optimizer.register_load_state_dict_post_hook(
            lambda optimizer: seen.append(optimizer.param_groups[0]["lr"])
        )
        lr = optimizer.param_groups[0]["lr"]
        optimizer.load_state_dict(optimizer.state_dict())
        self.assertEqual(seen, [(10 * lr + 10) * 2 + 2])


def public(optimizer: Optimizer) -> set[str]:
    """Names of its attributes."""
    return {name for name in vars(optimizer) if not name.startswith("_")}


instantiate_device_type_tests(TestState, globals())
instantiate_device_type_tests(TestHooks, globals())
