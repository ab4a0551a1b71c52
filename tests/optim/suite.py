"""Our optimizers as torch's own test-suite describes one, and what it lets them learn.

`OptimizerInfo`, `OptimizerInput` and `ErrorOptimizerInput`, the schedulers of an info
and the errors that no optimizer may miss are torch's; an entry of `INFOS` brings a
class into every test of `test_torch_suite.py` and `test_torch_state.py`.
"""

import copy
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.testing._internal.common_device_type import onlyCUDA
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerErrorEnum,
    OptimizerInfo,
    OptimizerInput,
    _get_optim_inputs_including_global_cliquey_kwargs,
    get_error_inputs_for_all_optims,
    optims,
)
from torch.testing._internal.opinfo.core import DecorateInfo

from dynoscope.optim import (
    L1,
    Huber,
    Lion,
    LionK,
    Lp,
    NormGD,
    OrtSepNorm,
    Rotational,
    SepNorm,
    Threshold,
    TopK,
)

Test = TypeVar("Test", bound=Callable[..., None])
Hyper = Mapping[str, Any]

# what all of them take
COMMON: list[Hyper] = [
    {},
    {"lr": 0.01},
    {"lr": torch.tensor(0.001)},
    {"betas": (0.95, 0.98)},
    {"weight_decay": 0.2},
    {"maximize": True},
    {"weight_decay": 0.2, "maximize": True},
]
BAD: list[tuple[Hyper, str]] = [
    ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
    ({"lr": -1e-3}, "lr must be positive and finite, got -0.001"),
    ({"betas": (1.0, 0.99)}, r"betas must be two numbers in \[0, 1\)"),
    ({"weight_decay": -0.1}, "weight_decay must be finite and >= 0, got -0.1"),
]
OUR_WORDS = {"Tensor lr must be 1-element": "[Tt]ensor lr must .*element"}


def info(
    make: Callable[..., Optimizer],
    *own: Hyper,
    always: Hyper | None = None,
    common: Sequence[Hyper] = COMMON,
    bad: Sequence[tuple[Hyper, str]] = BAD,
    skips: Mapping[str, str] | None = None,
) -> OptimizerInfo:
    """The entry of a class, or of any function with a name that makes an optimizer.

    Args:
        make: takes parameters and hyperparameters.
        own: hyperparameters to test besides the common ones.
        always: hyperparameters that cannot be left out.
        common: what is taken of the common ones.
        bad: hyperparameters to refuse, and what is said.
        skips: tests that do not apply, and why.
    """
    always = always or {}

    def inputs(device: str, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
        return [_input(copy.deepcopy({**always, **hyper})) for hyper in (*common, *own)]

    def errors(device: str, dtype: torch.dtype) -> list[ErrorOptimizerInput]:
        found: list[ErrorOptimizerInput]
        found = get_error_inputs_for_all_optims(device, dtype)
        for error in found:
            error.error_regex = OUR_WORDS.get(
                error.optimizer_error_input.desc, error.error_regex
            )
        for hyper, message in bad:
            found.append(
                ErrorOptimizerInput(
                    _input(dict(hyper)),
                    error_type=ValueError,
                    error_regex=message,
                )
            )
        sparse = Parameter(torch.ones(3, 2, device=device, dtype=dtype))
        sparse.grad = torch.ones_like(sparse).to_sparse()
        found.append(
            ErrorOptimizerInput(
                OptimizerInput([sparse], {}, "sparse gradient"),
                error_on=OptimizerErrorEnum.STEP_ERROR,
                error_regex="cannot use the sparse gradient",
            )
        )
        for error in found:
            kwargs = error.optimizer_error_input.kwargs
            error.optimizer_error_input.kwargs = {**always, **kwargs}
        return found

    return OptimizerInfo(
        make,  # type: ignore[arg-type]  # annotated as an instance
        optim_inputs_func=inputs,
        optim_error_inputs_func=errors,
        supported_impls=("foreach",),
        not_og_supported_flags=("foreach", "maximize"),
        skips=tuple(
            DecorateInfo(unittest.skip(why), test_name=test)
            for test, why in (skips or {}).items()
        ),
    )


def _input(hyper: dict[str, Any]) -> OptimizerInput:
    return OptimizerInput(None, hyper, str(hyper))  # type: ignore[arg-type]


def rotational_adamw(params: Any, **hyper: Any) -> Rotational:
    return Rotational(AdamW(params, **hyper), center=False)


def rotational_lion(params: Any, **hyper: Any) -> Rotational:
    return Rotational(Lion(params, **hyper), center=False)


DECAY = "test_groups_have_their_own_weight_decay"
ANGLE = {DECAY: "weight decay sets the angle of a step"}
INFOS = [
    info(Lion),
    info(
        LionK,
        {"k": Lp(1.5)},
        {"k": Lp(1.5), "per": "model"},
        {"k": Threshold(0.01)},
        {"k": TopK(2), "per": "model"},
        {"k": Huber(0.5)},
        always={"k": L1()},
    ),
    info(NormGD),
    info(OrtSepNorm, {"per": "row"}, {"per": "group"}),
    info(
        rotational_adamw,
        common=[hyper for hyper in COMMON if not isinstance(hyper.get("lr"), Tensor)],
        bad=[],
        skips={
            **ANGLE,
            "test_a_tensor_lr_is_the_number_it_holds": "not with foreach",
            "test_dtypes_mix": "refuses 16 bits",
        },
    ),
    info(rotational_lion, always={"weight_decay": 0.1}, skips=ANGLE),
    info(SepNorm, {"per": "row"}, {"per": "group"}),
]


def each(test: Test) -> Test:
    """torch's `optims` over our infos, with a type."""
    return cast(Test, optims(INFOS)(test))


def each_wide(test: Test) -> Test:
    """The same in float64."""
    return cast(Test, optims(INFOS, dtypes=[torch.float64])(test))


def on_cuda(test: Test) -> Test:
    """torch's `onlyCUDA`, with a type."""
    return cast(Test, onlyCUDA(test))


def build(its_info: OptimizerInfo, params: Any, **hyper: Any) -> Optimizer:
    """An optimizer of the info's class."""
    built: Optimizer = its_info.optim_cls(params, **hyper)  # type: ignore[operator]
    return built


def plain(device: str, its_info: OptimizerInfo) -> Iterator[dict[str, Any]]:
    """Every choice of hyperparameters, foreach left open."""
    for its_input in its_info.optim_inputs_func(device):
        yield its_input.kwargs


def with_foreach(
    device: str, dtype: torch.dtype, its_info: OptimizerInfo
) -> Iterator[dict[str, Any]]:
    """Every choice of hyperparameters, with foreach off and on."""
    yield from (
        its_input.kwargs
        for its_input in _get_optim_inputs_including_global_cliquey_kwargs(
            device, dtype, its_info
        )
    )


class Regression:
    """Sum of (weight @ x + bias)**2."""

    def __init__(
        self,
        device: str,
        dtype: torch.dtype = torch.float32,
        *,
        contiguous: bool = True,
    ) -> None:
        noise = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            drawn = torch.randn(*shape, 2, generator=noise, dtype=torch.float64)
            return drawn.to(device, dtype)[..., 0]

        layout = Tensor.contiguous if contiguous else Tensor.detach
        self.weight = Parameter(layout(draw(10, 5)))
        self.bias = Parameter(layout(draw(10)))
        self.x = draw(5)

    @property
    def params(self) -> list[Parameter]:
        return [self.weight, self.bias]

    @property
    def named(self) -> list[tuple[str, Parameter]]:
        return [("weight", self.weight), ("bias", self.bias)]

    def value(self) -> Tensor:
        """The loss, to be differentiated."""
        return (self.weight.mv(self.x) + self.bias).square().sum()

    def loss(self) -> float:
        """The loss; it leaves its gradients, and no older ones."""
        for param in self.params:
            param.grad = None
        value = self.value()
        value.backward()
        return value.item()

    def train(
        self, optimizer: Optimizer, steps: int, schedulers: list[Any] | None = None
    ) -> float:
        """Loss after some steps."""
        for _ in range(steps):
            loss = optimizer.step(self.loss)
            for scheduler in schedulers or []:
                plateau = isinstance(scheduler, ReduceLROnPlateau)
                scheduler.step(*[loss] * plateau)
        return self.loss()

    def copy_from(self, other: "Regression") -> None:
        """Take another's weights."""
        with torch.no_grad():
            for mine, its in zip(self.params, other.params, strict=True):
                mine.copy_(its)
