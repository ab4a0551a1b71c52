"""Lion: the sign of an interpolated momentum, with decoupled weight decay."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, overload

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

__all__ = ["Lion"]

_HALF = (torch.bfloat16, torch.float16)
_Columns: TypeAlias = tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]


class Lion(Optimizer):
    """Lion (evolved sign momentum), bit-identical to its common implementations.

    With the gradient g, the momentum m (``exp_avg``, 0 at first) and the weight w:

        w <- (1 - lr * weight_decay) * w
        w <- w - lr * sign(beta1 * m + (1 - beta1) * g)
        m <- beta2 * m + (1 - beta2) * g

    Units: every weight moves by exactly lr in a step (besides the decay), so lr is
    in the weight's own unit. weight_decay is decoupled: a step shrinks the weight
    by the share lr * weight_decay, and in the long run holds it inside the box
    ``|w| <= 1 / weight_decay``.

    Coming from AdamW: a sign is larger than AdamW's update, so take an lr 3 to 10
    times smaller and a weight_decay as many times larger, which keeps their
    product. The betas for (.9, .999) in AdamW are (.9, .99), the default; (.95,
    .98) is steadier.

    A complex parameter counts as its real and imaginary parts. A tensor lr is read
    at every step, which waits for its device, except under ``torch.compile``.

    Args:
        params: parameters, named or not, or parameter groups.
        lr: learning rate, positive; a float or a one-element tensor.
        betas: beta1 of the interpolation and beta2 of the momentum, in [0, 1).
        weight_decay: decoupled weight decay, at least 0.
        maximize: ascend instead of descend.
        foreach: update all tensors of a group at once (True), one at a time
            (False), or at once where all are plain tensors on an accelerator
            (None). Both ways give the same bits.

    Raises:
        ValueError: a hyperparameter of the defaults or of a group is out of range.

    Source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms",
    algorithm 2 (arXiv 2302.06675).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
        }
        _check(defaults)
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, also one that another implementation of Lion saved."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)
            group.setdefault("foreach", None)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with hyperparameters of their own if they name any."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

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
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        slots = [
            self._slot(param, param.grad)
            for param in group["params"]
            if param.grad is not None
        ]
        foreach = group["foreach"]
        if foreach is None:
            # on a CPU one at a time is faster: a tensor stays in the cache
            foreach = all(
                type(slot.param) in (Tensor, Parameter) and not slot.param.is_cpu
                for slot in slots
            )
        update = _update_together if foreach else _update_one_by_one
        update(
            slots,
            lr=_scalar(group["lr"]),
            betas=group["betas"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
        )

    def _slot(self, param: Tensor, grad: Tensor) -> "_Slot":
        if grad.is_sparse:
            raise RuntimeError(
                f"Lion cannot use the sparse gradient of the parameter of shape "
                f"{tuple(param.shape)}, because its momentum moves every weight; make "
                "the gradient dense (nn.Embedding: sparse=False)"
            )
        state = self.state[param]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(
                param, memory_format=torch.preserve_format
            )
        slot = _Slot(param, grad, state["exp_avg"])
        if param.is_complex():
            return _Slot(*(torch.view_as_real(tensor) for tensor in slot))
        return slot


class _Slot(NamedTuple):
    """What the update of one parameter reads and writes."""

    param: Tensor
    grad: Tensor
    exp_avg: Tensor


def _update_one_by_one(
    slots: list[_Slot],
    *,
    lr: float | Tensor,
    betas: tuple[float, float],
    weight_decay: float,
    maximize: bool,
) -> None:
    """The recursion as it is written down."""
    beta1, beta2 = betas
    for param, grad, exp_avg in slots:
        uphill = -grad if maximize else grad
        direction = exp_avg.mul(beta1).add_(uphill, alpha=1 - beta1).sign_()
        param.mul_(1 - lr * weight_decay)
        if isinstance(lr, Tensor):
            param.sub_(direction * lr)
        else:
            param.add_(direction, alpha=-lr)
        exp_avg.mul_(beta2).add_(uphill, alpha=1 - beta2)


def _update_together(
    slots: list[_Slot],
    *,
    lr: float | Tensor,
    betas: tuple[float, float],
    weight_decay: float,
    maximize: bool,
) -> None:
    """The same recursion, operation for operation, on lists of tensors."""
    beta1, beta2 = betas
    for params, grads, exp_avgs in _by_device_and_dtype(slots):
        uphill = torch._foreach_neg(grads) if maximize else grads
        directions = torch._foreach_mul(exp_avgs, beta1)
        torch._foreach_add_(directions, uphill, alpha=1 - beta1)
        torch._foreach_sign_(directions)
        _scale(params, 1 - lr * weight_decay)
        if isinstance(lr, Tensor):
            torch._foreach_sub_(params, torch._foreach_mul(directions, lr))
        else:
            torch._foreach_add_(params, directions, alpha=-lr)
        _scale(exp_avgs, beta2)
        torch._foreach_add_(exp_avgs, uphill, alpha=1 - beta2)


def _scale(tensors: tuple[Tensor, ...], factor: float | Tensor) -> None:
    """Multiply in place by all digits of the factor.

    On a CPU foreach rounds a float factor to the tensors' dtype first: .9 becomes
    .8984 in bfloat16. A 0-d tensor it takes as it is, like `Tensor.mul_`.
    """
    if tensors[0].dtype in _HALF and tensors[0].is_cpu:
        factor = torch.as_tensor(factor, dtype=torch.float32)
    torch._foreach_mul_(tensors, factor)


def _by_device_and_dtype(slots: list[_Slot]) -> Iterator[_Columns]:
    """Parameters, gradients and momenta that one foreach call can take."""
    alike: defaultdict[tuple[torch.device, torch.dtype], list[_Slot]]
    alike = defaultdict(list)
    for slot in slots:
        alike[slot.param.device, slot.param.dtype].append(slot)
    for members in alike.values():
        params, grads, exp_avgs = zip(*members, strict=True)
        yield params, grads, exp_avgs


def _scalar(lr: float | Tensor) -> float | Tensor:
    """A number, or inside a compiled graph the tensor, which may change later."""
    if not isinstance(lr, Tensor):
        return lr
    return lr.squeeze() if torch.compiler.is_compiling() else lr.item()


def _check(group: Mapping[str, Any]) -> None:
    """Refuse hyperparameters with which Lion is not Lion; NaN fails every test."""
    lr, betas, weight_decay = group["lr"], group["betas"], group["weight_decay"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"a tensor lr must have one element, got {lr.numel()}")
    if not 0 < float(lr) < math.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas must be two numbers in [0, 1), got {betas}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be finite and >= 0, got {weight_decay}")
