"""What Lion and its relatives share: interpolated momentum, decoupled decay.

With the gradient g, the momentum m (``exp_avg``, 0 at first) and the weight w:

    n <- beta1 * m + (1 - beta1) * g
    w <- (1 - lr * weight_decay) * w - lr * u,    u made of n
    m <- beta2 * m + (1 - beta2) * g

Only the way from n to the update u differs from one optimizer to the next.
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from dynoscope.sharding import Layout, aligned, layout, local

__all__ = ["Batch", "InterpolatedMomentum"]

_HALF = (torch.bfloat16, torch.float16)


class InterpolatedMomentum(Optimizer, ABC):
    """A `torch.optim.Optimizer` that lacks only the way from n to the update."""

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        check_hyperparameters(defaults)
        super().__init__(params, defaults)

    @abstractmethod
    def _update(self, batches: Iterator["Batch"]) -> None:
        """Make an update of every batch's `interpolated` and `descend` by it."""

    def _check_group(self, group: Mapping[str, Any]) -> None:
        """Refuse a parameter group, or warn of it; here all are welcome."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, also one that another implementation saved."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with hyperparameters of their own if they name any."""
        check_hyperparameters({**self.defaults, **param_group})
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            The closure's loss, None without a closure.

        Raises:
            RuntimeError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        slots = [self._slots(group) for group in self.param_groups]
        self._update(
            batch
            for group, its_slots in zip(self.param_groups, slots, strict=True)
            for batch in _batches(group, its_slots)
        )
        return loss

    def _slots(self, group: Mapping[str, Any]) -> list["_Slot"]:
        return [
            self._slot(param, param.grad)
            for param in group["params"]
            if param.grad is not None
        ]

    def _slot(self, param: Tensor, grad: Tensor) -> "_Slot":
        if grad.is_sparse:
            raise RuntimeError(
                f"{type(self).__name__} cannot use the sparse gradient of the "
                f"parameter of shape {tuple(param.shape)}, because its momentum "
                "moves every weight; make the gradient dense (nn.Embedding: "
                "sparse=False)"
            )
        state = self.state[param]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(
                param, memory_format=torch.preserve_format
            )
        its_layout = layout(param)
        slot = _Slot(param, grad, state["exp_avg"], its_layout)
        if its_layout is not None:
            state["exp_avg"] = aligned(slot.exp_avg, its_layout)
            grad = aligned(grad, its_layout)
            slot = _Slot(local(param), local(grad), local(state["exp_avg"]), its_layout)
        return slot.as_real() if param.is_complex() else slot


class _Slot(NamedTuple):
    """What an update reads and writes: a parameter, or its local shard."""

    param: Tensor
    grad: Tensor
    exp_avg: Tensor
    layout: Layout | None

    def as_real(self) -> "_Slot":
        *tensors, layout = self
        param, grad, exp_avg = map(torch.view_as_real, tensors)
        return _Slot(param, grad, exp_avg, layout and layout.as_real())


class Batch(NamedTuple):
    """Parameters of one group that are updated by the same calls.

    Without foreach it holds a single one, and every method is the recursion as it
    is written down; with foreach the same operations, one by one, on lists. Of a
    DTensor it holds the local shard, and in `layouts` what the shard is a part of.
    """

    params: tuple[Tensor, ...]
    grads: tuple[Tensor, ...]
    exp_avgs: tuple[Tensor, ...]
    layouts: tuple[Layout | None, ...]
    group: Mapping[str, Any]
    foreach: bool

    def interpolated(self) -> list[Tensor]:
        """The momentum n of the step, new tensors, pointing uphill."""
        beta1, _ = self.group["betas"]
        uphill = self._uphill()
        if not self.foreach:
            return [
                exp_avg.mul(beta1).add_(grad, alpha=1 - beta1)
                for exp_avg, grad in zip(self.exp_avgs, uphill, strict=True)
            ]
        updates = list(torch._foreach_mul(self.exp_avgs, beta1))
        torch._foreach_add_(updates, uphill, alpha=1 - beta1)
        return updates

    def descend(self, updates: list[Tensor]) -> None:
        """Decay the weights, move them against the updates, average the gradient."""
        lr, (_, beta2) = _scalar(self.group["lr"]), self.group["betas"]
        keep, uphill = 1 - lr * self.group["weight_decay"], self._uphill()
        if self.foreach:
            _scale(self.params, keep)
            if isinstance(lr, Tensor):
                torch._foreach_sub_(self.params, torch._foreach_mul(updates, lr))
            else:
                torch._foreach_add_(self.params, updates, alpha=-lr)
            _scale(self.exp_avgs, beta2)
            torch._foreach_add_(self.exp_avgs, uphill, alpha=1 - beta2)
            return
        columns = zip(self.params, updates, self.exp_avgs, uphill, strict=True)
        for param, update, exp_avg, grad in columns:
            param.mul_(keep)
            if isinstance(lr, Tensor):
                param.sub_(update * lr)
            else:
                param.add_(update, alpha=-lr)
            exp_avg.mul_(beta2).add_(grad, alpha=1 - beta2)

    def _uphill(self) -> tuple[Tensor, ...]:
        if not self.group["maximize"]:
            return self.grads
        return tuple(torch._foreach_neg(self.grads))


def _batches(group: Mapping[str, Any], slots: list[_Slot]) -> Iterator[Batch]:
    foreach = group["foreach"]
    if foreach is None:
        # on a CPU one at a time is faster: a tensor stays in the cache
        foreach = all(
            type(slot.param) in (Tensor, Parameter) and not slot.param.is_cpu
            for slot in slots
        )
    for members in _by_device_and_dtype(slots) if foreach else ([s] for s in slots):
        params, grads, exp_avgs, layouts = zip(*members, strict=True)
        yield Batch(params, grads, exp_avgs, layouts, group, foreach)


def _by_device_and_dtype(slots: list[_Slot]) -> Iterable[list[_Slot]]:
    """Parameters, gradients and momenta that one foreach call can take."""
    alike: defaultdict[tuple[torch.device, torch.dtype], list[_Slot]]
    alike = defaultdict(list)
    for slot in slots:
        alike[slot.param.device, slot.param.dtype].append(slot)
    return alike.values()


def _scale(tensors: tuple[Tensor, ...], factor: float | Tensor) -> None:
    """Multiply in place by all digits of the factor.

    On a CPU foreach rounds a float factor to the tensors' dtype first: .9 becomes
    .8984 in bfloat16. A 0-d tensor it takes as it is, like `Tensor.mul_`.
    """
    if tensors[0].dtype in _HALF and tensors[0].is_cpu:
        factor = torch.as_tensor(factor, dtype=torch.float32)
    torch._foreach_mul_(tensors, factor)


def _scalar(lr: float | Tensor) -> float | Tensor:
    """A number, or inside a compiled graph the tensor, which may change later."""
    if not isinstance(lr, Tensor):
        return lr
    return lr.squeeze() if torch.compiler.is_compiling() else lr.item()


def check_hyperparameters(group: Mapping[str, Any]) -> None:
    """Refuse hyperparameters that make no sense; NaN fails every test.

    Raises:
        ValueError: a hyperparameter is out of range.
    """
    lr, betas, weight_decay = group["lr"], group["betas"], group["weight_decay"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(
            f"a tensor lr must have one element, got {lr.numel()}; give parameters "
            "of different lr a group each"
        )
    if not 0 < float(lr) < math.inf:
        raise ValueError(
            f"lr must be positive and finite, got {lr}; leave out the parameters "
            "that should stay as they are, and to ascend use maximize=True"
        )
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(
            f"betas must be two numbers in [0, 1), got {betas}; at 1 a gradient would "
            "never enter, (0, 0) is no momentum"
        )
    if not 0 <= weight_decay < math.inf:
        raise ValueError(
            f"weight_decay must be finite and >= 0, got {weight_decay}; a negative one "
            "blows the weights up, 0 switches it off"
        )
