"""Lion-K: Lion with the gradient of any convex function in place of the sign."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dynoscope.optim import _shards
from dynoscope.optim._momentum import Batch, InterpolatedMomentum
from dynoscope.optim.convex import Gradient, TopK
from dynoscope.sharding import Layout, cut

__all__ = ["LionK"]


class LionK(InterpolatedMomentum):
    """Lion-K: minimise the loss under the constraint that a convex K stands for.

    With the gradient g, the momentum m (``exp_avg``, 0 at first) and the weight w:

        n <- beta1 * m + (1 - beta1) * g
        w <- (1 - lr * weight_decay) * w - lr * grad K(n)
        m <- beta2 * m + (1 - beta2) * g

    It solves ``min f(w) + K*(weight_decay * w) / weight_decay``. First the distance of
    ``weight_decay * w`` to the domain of K* shrinks at least by the factor ``1 - lr *
    weight_decay`` in every step; then, inside, the loss plus K* falls. The
    functions of `dynoscope.optim.convex` know their constraint.

    >>> import torch
    >>> from dynoscope.optim import Lp
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = LionK([weight], k=Lp(1.5), weight_decay=0.1)
    >>> optimizer.k.constraint
    '||y||_3 <= 1'

    Units: lr * grad K(n) is in the weight's own unit. weight_decay is decoupled: a
    step shrinks the weight by the share lr * weight_decay, and 1 / weight_decay is
    the size of the region that w is held in.

    Coming from AdamW: with `L1`, `Threshold`, `TopK` and `Huber` a coordinate moves
    by at most lr, as in Lion: take an lr 3 to 10 times smaller and a weight_decay as
    many times larger. With `Lp` multiply that lr, and divide that weight_decay, by
    ``numel**(1 - 1/p)``, which keeps the root mean square of a step at p <= 2. The
    betas for (.9, .999) in AdamW are (.9, .99), the default.

    A complex parameter counts as its real and imaginary parts. A tensor lr is read
    at every step, which waits for its device, except under ``torch.compile``. K is
    a part of the optimizer, not of its ``state_dict``: give it again on resuming.

    Of parameters that are sharded (DTensors, as of ``fully_shard``) a separable K is
    given the local shards, which may be empty. Any other K gets whole tensors,
    gathered on every process, which takes their memory and a collective for each and
    every mesh dimension that cuts it.

    Args:
        params: parameters, named or not, or parameter groups.
        lr: learning rate, positive; a float or a one-element tensor.
        betas: beta1 of the interpolation and beta2 of the momentum, in [0, 1).
        weight_decay: decoupled weight decay, at least 0.
        k: the convex function, or anything with its gradient as a method
            ``grad(x: Tensor) -> Tensor``; it must not write to x.
        per: "tensor": K sees every tensor by itself; "model": it sees all of them
            as one vector, which takes a copy of it. A separable K (``separable =
            True``: `L1`, `Threshold`, `Huber`) is the same either way, so that it
            sees the tensors.
        maximize: ascend instead of descend.
        foreach: update all tensors of a group at once (True), one at a time
            (False), or at once where all are plain tensors on an accelerator
            (None); K itself sees one vector after another. The ways give the same
            bits if K does.

    Raises:
        ValueError: a hyperparameter of the defaults or of a group is out of range,
            a tensor has fewer coordinates than `TopK` takes, or k has no ``grad``.

    Source: Chen et al. 2024, "Lion Secretly Solves Constrained Optimization: As
    Lyapunov Predicts", eq. 2 and Table 2 (arXiv 2310.05898).
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        k: Gradient,
        per: Literal["model", "tensor"] = "tensor",
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        if not callable(getattr(k, "grad", None)):
            raise ValueError(
                f"k has no method grad(x), got {k!r}; give one of "
                "dynoscope.optim.convex, such as L1(), or an object of your own"
            )
        if per not in ("model", "tensor"):
            raise ValueError(f"per must be one of 'model', 'tensor', got {per!r}")
        self.k, self.per = k, per
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "foreach": foreach,
            },
        )

        if per == "model" and isinstance(k, TopK):
            k.check(
                sum(_numel(p) for group in self.param_groups for p in group["params"])
            )

    def __getstate__(self) -> dict[str, Any]:
        """The state for a copy or a pickle, K included."""
        return {**super().__getstate__(), "k": self.k, "per": self.per}

    def _check_group(self, group: Mapping[str, Any]) -> None:
        if self.per == "tensor" and isinstance(self.k, TopK):
            for param in group["params"]:
                self.k.check(_numel(param))

    def _update(self, batches: Iterator[Batch]) -> None:
        if self.per == "tensor" or self._separable:
            for batch in batches:
                momenta = zip(batch.interpolated(), batch.layouts, strict=True)
                batch.descend([self._tensor_grad(n, layout) for n, layout in momenta])
            return
        model = list(batches)
        gradients = self._joint_grad(
            [n for batch in model for n in batch.interpolated()],
            [layout for batch in model for layout in batch.layouts],
        )
        for batch in model:
            batch.descend([next(gradients) for _ in batch.params])

    @property
    def _separable(self) -> bool:
        return getattr(self.k, "separable", False)

    def _tensor_grad(self, momentum: Tensor, layout: Layout | None) -> Tensor:
        """The gradient of K at one tensor, or the shard of it."""
        if layout is None or self._separable:
            return self._grad(momentum)
        return cut(self._grad(_shards.gather(momentum, layout)), layout)

    def _grad(self, momentum: Tensor) -> Tensor:
        gradient = self.k.grad(momentum)
        if gradient.shape != momentum.shape:
            raise ValueError(
                f"{self.k!r}.grad gave the shape {tuple(gradient.shape)} for a "
                f"momentum of shape {tuple(momentum.shape)}; it must keep the shape"
            )
        return gradient

    def _joint_grad(
        self, momenta: list[Tensor], layouts: list[Layout | None]
    ) -> Iterator[Tensor]:
        """The gradient of K at all momenta as one vector, cut up again."""
        if not momenta:
            return
        home = momenta[0].device
        whole = [
            momentum if layout is None else _shards.gather(momentum, layout)
            for momentum, layout in zip(momenta, layouts, strict=True)
        ]
        joint = torch.cat([momentum.reshape(-1).to(home) for momentum in whole])
        pieces = self._grad(joint).split([momentum.numel() for momentum in whole])
        for piece, momentum, layout in zip(pieces, whole, layouts, strict=True):
            gradient = piece.view_as(momentum).to(momentum)
            yield gradient if layout is None else cut(gradient, layout)


def _numel(param: Tensor) -> int:
    """Number of real coordinates."""
    return param.numel() * (2 if param.is_complex() else 1)
