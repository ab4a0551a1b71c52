"""Lion: the sign of an interpolated momentum, with decoupled weight decay."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dynoscope.optim._momentum import Batch, InterpolatedMomentum

__all__ = ["Lion"]


class Lion(InterpolatedMomentum):
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
    at every step, which waits for its device, except under ``torch.compile``. Sharded
    parameters (DTensors, as of ``fully_shard``) need no communication.

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

    def _update(self, batches: Iterator[Batch]) -> None:
        for batch in batches:
            directions = batch.interpolated()
            torch._foreach_sign_(directions)
            batch.descend(directions)
