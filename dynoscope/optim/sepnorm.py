"""SepNorm and OrtSepNorm: steps of a fixed length in every block of weights."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from dynoscope.optim import _blocks
from dynoscope.optim._blocks import Per
from dynoscope.optim._cut_blocks import CutBlocks
from dynoscope.optim._momentum import Batch, InterpolatedMomentum

__all__ = ["OrtSepNorm", "SepNorm"]

_ROUNDING = 16  # units in the last place of a projection that is rounding alone


class _Blockwise(InterpolatedMomentum):
    """An optimizer whose update depends on one block of weights at a time."""

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.1,
        *,
        per: Per = "tensor",
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "weight_decay": weight_decay,
                "per": per,
                "maximize": maximize,
                "foreach": foreach,
            },
        )

    @abstractmethod
    def _direct(self, updates: list[Tensor], params: list[Tensor], per: Per) -> None:
        """Turn the momenta, in place, into updates of root mean square 1."""

    @abstractmethod
    def _direct_cut(self, blocks: CutBlocks) -> None:
        """The same for `blocks.updates`, of which others hold further parts."""

    def _check_group(self, group: Mapping[str, Any]) -> None:
        if group["per"] not in _blocks.PER:
            known = ", ".join(f"'{per}'" for per in _blocks.PER)
            raise ValueError(f"per must be one of {known}, got {group['per']!r}")

    def _update(self, batches: Iterator[Batch]) -> None:
        groups = [
            list(members)
            for _, members in groupby(batches, key=lambda batch: id(batch.group))
        ]
        if any(layout for alike in groups for b in alike for layout in b.layouts):
            self._update_cut(groups)
            return
        for alike in groups:
            whole = alike[0].group["per"] == "group"
            for together in [alike] if whole else ([batch] for batch in alike):
                self._update_blocks(together)

    def _update_blocks(self, batches: list[Batch]) -> None:
        updates = [_blocks.widened(batch.interpolated()) for batch in batches]
        self._direct(
            [update for its_updates in updates for update in its_updates],
            [param for batch in batches for param in batch.params],
            batches[0].group["per"],
        )
        for batch, its_updates in zip(batches, updates, strict=True):
            batch.descend(its_updates)

    def _update_cut(self, groups: list[list[Batch]]) -> None:
        blocks = CutBlocks(groups)
        self._direct_cut(blocks)
        updates = iter(blocks.updates)
        for batch in (batch for alike in groups for batch in alike):
            batch.descend([next(updates) for _ in batch.params])


class SepNorm(_Blockwise):
    """SepNorm: every block of weights moves by the same root mean square.

    With the gradient g, the momentum m (``exp_avg``, 0 at first) and the weight w:

        n <- beta1 * m + (1 - beta1) * g
        w_l <- (1 - lr * weight_decay) * w_l - lr * sqrt(|l|) * n_l / ||n_l||
        m <- beta2 * m + (1 - beta2) * g

    for every block l of |l| weights. Blocks of one weight would make it Lion, a
    single block NormGD. A block of zeros in n only decays.

    Units: the root mean square of a block's step is exactly lr (besides the decay),
    so lr is in the weight's own unit. weight_decay is decoupled: a step shrinks the
    weight by the share lr * weight_decay. Without momentum a scale-invariant block
    settles at the norm ``lr * sqrt(|l| / (1 - (1 - lr * weight_decay)**2))``; with
    the default betas at up to 8.4 times that, because successive steps are alike.

    Coming from AdamW: as for Lion, take an lr 3 to 10 times smaller and a
    weight_decay as many times larger, which keeps their product. The betas for
    (.9, .999) in AdamW are (.9, .99), the default. Lion's hyperparameters stay as
    they are.

    A complex parameter counts as its real and imaginary parts. A tensor lr is read
    at every step, which waits for its device, except under ``torch.compile``.

    Blocks are whole also where parameters are sharded (DTensors, as of
    ``fully_shard``): one collective a step for every mesh dimension that cuts blocks,
    all processes taking part. Rows that are whole on a process need none.

    Args:
        params: parameters, named or not, or parameter groups.
        lr: learning rate, positive; a float or a one-element tensor.
        betas: beta1 of the interpolation and beta2 of the momentum, in [0, 1).
        weight_decay: decoupled weight decay, at least 0; .1 by default.
        per: what a block is. "tensor": a layer's weight, or its bias; "row": the
            weights of one output, a vector being a single row; "group": all
            tensors of a parameter group, so that the groups are your blocks.
        maximize: ascend instead of descend.
        foreach: update all tensors of a group at once (True), one at a time
            (False), or at once where all are plain tensors on an accelerator
            (None). The ways agree up to rounding.

    Raises:
        ValueError: a hyperparameter of the defaults or of a group is out of range.

    Source: definition A.3 of "Sep Norm: Generalization of Lion and Normalised
    Gradient Methods", with the momentum of its eq. 11, whose minus signs are
    misprints for ``-lr * (beta1 * m + (1 - beta1) * g) / ||.||``.
    """

    def _direct(self, updates: list[Tensor], params: list[Tensor], per: Per) -> None:
        _blocks.normalize(updates, per)

    def _direct_cut(self, blocks: CutBlocks) -> None:
        squares = blocks.squares(blocks.updates)
        blocks.complete(squares)
        blocks.normalize(squares)


class OrtSepNorm(_Blockwise):
    """OrtSepNorm: SepNorm with updates orthogonal to the weights.

    With the gradient g, the momentum m (``exp_avg``, 0 at first) and the weight w:

        n <- beta1 * m + (1 - beta1) * g
        n_l <- n_l - <w_l, n_l> / ||w_l||^2 * w_l
        w_l <- (1 - lr * weight_decay) * w_l - lr * sqrt(|l|) * n_l / ||n_l||
        m <- beta2 * m + (1 - beta2) * g

    for every block l of |l| weights. A block of zeros in w, or of one weight, has no
    direction to be orthogonal to, or none left, and moves as in SepNorm; where n is
    0 or along w, nothing but the decay moves.

    Units: the root mean square of a block's step is exactly lr (besides the decay),
    so lr is in the weight's own unit. weight_decay is decoupled: a step shrinks the
    weight by the share lr * weight_decay. Every block, scale-invariant or not and
    whatever the momentum, settles at the norm
    ``lr * sqrt(|l| / (1 - (1 - lr * weight_decay)**2))``, about
    ``sqrt(|l| * lr / (2 * weight_decay))``. Without decay it grows for ever.

    Coming from AdamW: take an lr 3 to 10 times smaller. weight_decay is no
    regularization here but chooses the norm: to keep the norm N of a block, set it
    to ``|l| * lr / (2 * N**2)``; .1, the default, is the published choice at lr =
    1e-3. A schedule of lr moves the norm with it. The betas for (.9, .999) in AdamW
    are (.9, .99), the default.

    A complex parameter counts as its real and imaginary parts. A tensor lr is read
    at every step, which waits for its device, except under ``torch.compile``.

    Blocks are whole also where parameters are sharded (DTensors, as of
    ``fully_shard``): two collectives a step for every mesh dimension that cuts blocks,
    all processes taking part; the second because the norm of what is left of n cannot
    be told from the first sums without losing digits. Rows that are whole on a process
    need none.

    Args:
        params: parameters, named or not, or parameter groups.
        lr: learning rate, positive; a float or a one-element tensor.
        betas: beta1 of the interpolation and beta2 of the momentum, in [0, 1).
        weight_decay: decoupled weight decay; 0 is allowed, with a warning.
        per: what a block is. "tensor": a layer's weight, or its bias; "row": the
            weights of one output, a vector being a single row; "group": all
            tensors of a parameter group, so that the groups are your blocks.
        maximize: ascend instead of descend.
        foreach: update all tensors of a group at once (True), one at a time
            (False), or at once where all are plain tensors on an accelerator
            (None). The ways agree up to rounding.

    Raises:
        ValueError: a hyperparameter of the defaults or of a group is out of range.

    Source: definition A.4 and theorem 4.4 of "Sep Norm: Generalization of Lion and
    Normalised Gradient Methods".
    """

    def _check_group(self, group: Mapping[str, Any]) -> None:
        super()._check_group(group)
        if group["weight_decay"] == 0:
            warnings.warn(
                "OrtSepNorm without weight decay: every step is orthogonal to the "
                "weight, so its norm grows for ever; set weight_decay > 0, or take "
                "SepNorm for this group",
                stacklevel=2,
            )

    def _direct(self, updates: list[Tensor], params: list[Tensor], per: Per) -> None:
        _blocks.normalize(updates, per)
        # what is left of an update along the weight is rounding: not a direction
        rounding = max(torch.finfo(u.dtype).eps for u in updates) * _ROUNDING
        params = _blocks.widened(params)
        _project(
            updates,
            params,
            _blocks.numels((update.shape for update in updates), per),
            _blocks.norms(params, per, wide=False),
            _blocks.dots(params, updates, per),
        )
        _blocks.normalize(updates, per, least=rounding, wide=False)

    def _direct_cut(self, blocks: CutBlocks) -> None:
        squares = blocks.squares(blocks.updates)
        weights, dots = blocks.squares(blocks.params), blocks.dots()
        blocks.complete(squares, weights, dots)
        factors = blocks.normalize(squares)
        _project(
            blocks.updates,
            blocks.params,
            blocks.numels,
            [weight.sqrt() for weight in weights],
            [
                (dot * factor).to(factor)
                for dot, factor in zip(dots, factors, strict=True)
            ],
        )
        # anew: ||n||^2 - <w, n>^2 / ||w||^2 loses the digits of a small difference
        squares = blocks.squares(blocks.updates)
        blocks.complete(squares)
        blocks.normalize(squares, ulps=_ROUNDING)


def _project(
    updates: list[Tensor],
    params: list[Tensor],
    numels: list[int],
    sizes: list[Tensor],
    along: list[Tensor],
) -> None:
    """Take the part along the weight out of every block that has another one.

    Args:
        updates: tensors of these blocks, changed in place.
        params: their weights.
        numels: number of weights of every block.
        sizes: norm of the weights of every block.
        along: inner product of weights and update of every block.
    """
    columns = zip(updates, params, numels, sizes, along, strict=True)
    for update, param, numel, size, dot in columns:
        if numel > 1:
            # twice the inverse, not its square, which would leave float32's range
            shrink = _blocks.inverse(size, update)
            factor = (dot * shrink * shrink).nan_to_num(0.0, 0.0, 0.0)
            update.addcmul_(param, factor, value=-1)
