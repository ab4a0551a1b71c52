"""NormGD: a step of fixed length along the momentum of the whole model."""

from collections.abc import Iterator

from torch import Tensor
from torch.optim.optimizer import ParamsT

from dynoscope.optim import _blocks, _shards
from dynoscope.optim._momentum import Batch, InterpolatedMomentum

__all__ = ["NormGD"]


class NormGD(InterpolatedMomentum):
    """Normalized gradient descent, with Lion's momentum and decoupled weight decay.

    With the gradient g, the momentum m (``exp_avg``, 0 at first) and the weight w:

        n <- beta1 * m + (1 - beta1) * g
        w <- (1 - lr * weight_decay) * w - lr * n / ||n||
        m <- beta2 * m + (1 - beta2) * g

    The norm is taken over all parameters of all groups together. Where every
    gradient and momentum is 0, nothing but the decay moves.

    Units: the whole model moves by exactly lr in a step (besides the decay), so lr
    is in the weight's own unit. weight_decay is decoupled: a step shrinks the
    weight by the share lr * weight_decay. A scale-invariant model without
    momentum settles at the norm ``lr / sqrt(1 - (1 - lr * weight_decay)**2)``.

    Coming from AdamW: its step has a norm of about ``.2 * lr * sqrt(numel)``, so
    multiply lr by .2 to 1 times the root of the model's number of weights (3000 for
    ten million), divide weight_decay by as much, and use Lion's betas (.9, .99).

    A complex parameter counts as its real and imaginary parts. A tensor lr is read
    at every step, which waits for its device, except under ``torch.compile``. In
    float64 a norm beyond 1e154 counts as infinite and the step as 0. The norm is that
    of whole parameters, also where they are sharded (DTensors, as of ``fully_shard``):
    one collective a step for every mesh dimension that cuts, all processes taking part.

    Args:
        params: parameters, named or not, or parameter groups.
        lr: learning rate, positive; a float or a one-element tensor.
        betas: beta1 of the interpolation and beta2 of the momentum, in [0, 1).
        weight_decay: decoupled weight decay, at least 0.
        maximize: ascend instead of descend.
        foreach: update all tensors of a group at once (True), one at a time
            (False), or at once where all are plain tensors on an accelerator
            (None). The ways agree up to rounding.

    Raises:
        ValueError: a hyperparameter of the defaults or of a group is out of range.

    Source: definition A.2 of the SepNorm paper; the minus signs in its eq. 11 are
    misprints for ``-lr * (beta1 * m + (1 - beta1) * g) / ||.||``.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
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
        model = list(batches)
        # the momenta are mixed twice: to keep them would take a copy of the model
        sizes = [
            size
            for batch in model
            for size in _blocks.norms(_momenta(batch), per="tensor")
        ]
        layouts = [layout for batch in model for layout in batch.layouts]
        norms = iter(_blocks.joint(_shards.whole_norms(sizes, layouts, "tensor")))
        for batch in model:
            updates = _momenta(batch)
            for update, norm in zip(updates, norms, strict=False):
                update.mul_(_blocks.inverse(norm, update))
            batch.descend(updates)


def _momenta(batch: Batch) -> list[Tensor]:
    return _blocks.widened(batch.interpolated())
