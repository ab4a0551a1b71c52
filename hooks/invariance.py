"""Which weights the loss does not feel the scale of, found by rescaling them."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dynoscope.errors import MeasurementError
from dynoscope.hooks.batches import scalar_loss
from dynoscope.hooks.frozen import frozen, holding
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import FloatArray, Rows

__all__ = ["ModelLoss", "invariance_rows"]

ModelLoss = Callable[[nn.Module], torch.Tensor]
"""From the model, the loss on some fixed data."""

FACTORS: Final = (0.5, 2.0, 4.0)
"""Powers of two rescale without rounding."""

JITTERS: Final = 4
"""Perturbations by one unit in the last place, to see what rounding can do."""

SAFETY: Final = 4.0
"""How much more than the largest of them may still be rounding."""

NEGLIGIBLE: Final = 1e-6
"""Share of the loss below which no change counts, however fine its numbers are."""

FAINT: Final = 0.1
"""Share of a turn's effect below which a rescaling's may be called small."""


@dataclasses.dataclass(frozen=True)
class _Response:
    """Changes of the loss, absolute, as one layer is changed.

    NaN stands for what was not tried: a weight that is 0 has no scale, and rows
    are not tried where the tensor as a whole is not invariant.
    """

    granularity: str
    matrix: float = np.nan
    rows: float = np.nan
    turn: float = np.nan


def invariance_rows(watched: Watched, loss_fn: ModelLoss) -> Rows:
    """Rows of the `invariance` table; model and training are not touched.

    A tensor, or a half of its rows, is scaled by 1/2, 2 and 4. It is invariant
    if the loss then changes no more than by rounding, or in just the way in
    which the epsilon of a normalization makes it change: by c (1 - 1/r**2) for
    a factor r, which is eps / (2 var) to first order, and far less than if the
    rows turn. A row whose variance is as small as that epsilon has a scale, and
    spoils its layer. Every evaluation starts from the same random state and buffers.

    Args:
        watched: whose layers; the model stays in the mode it is in.
        loss_fn: `loss_fn(model)`, the loss on data that is the same every time.

    Raises:
        MeasurementError: the loss is not one finite number.

    Source: Kosson et al. 2024, appendix C.1 and eq. 6, 7.
    """
    loss_of = _Evaluation(watched.model, loss_fn)
    generator = torch.Generator().manual_seed(0)  # not the one that training uses
    noise = _noise(loss_of, watched.parameters, generator)
    found = [_respond(loss_of, p, noise, generator) for p in watched.parameters]
    changes = [[r.matrix, r.rows, r.turn, noise] for r in found]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.array(changes) / abs(loss_of.base)
    return Rows(
        "invariance",
        {
            "layer": np.array([layer.name for layer in watched.subject.layers]),
            "granularity": np.array([response.granularity for response in found]),
            "loss": loss_of.base,
            "matrix_change": relative[:, 0],
            "row_change": relative[:, 1],
            "turn_change": relative[:, 2],
            "noise": relative[:, 3],
        },
    )


class _Evaluation:
    """The loss, evaluated from the same state every time.

    Attributes:
        base: the loss with all weights as they are.
        spacing: relative spacing of the coarsest numbers that the model computes
            with, such as those of autocast.
        resolution: spacing of the loss's own numbers around `base`.
    """

    def __init__(self, model: nn.Module, loss_fn: ModelLoss) -> None:
        self._model, self._loss_fn = model, loss_fn
        with _dtypes_seen(model) as dtypes:
            self.base = self()
        self.spacing = max((torch.finfo(dtype).eps for dtype in dtypes), default=0.0)
        self.resolution = torch.finfo(self._dtype).eps * abs(self.base)
        if not np.isfinite(self.base):
            raise MeasurementError(
                f"loss_fn returned {self.base}; scale invariance can only be seen in "
                "a finite loss. Check the weights, or probe at an earlier step"
            )

    def __call__(self) -> float:
        with frozen(self._model):
            loss = scalar_loss(self._loss_fn(self._model)).detach()
            self._dtype = loss.dtype
            return float(loss)

    def change(self, parameter: nn.Parameter, values: torch.Tensor) -> float:
        """Change of the loss as a parameter takes other values."""
        with holding(parameter, values):
            return self() - self.base


@contextlib.contextmanager
def _dtypes_seen(model: nn.Module) -> Iterator[set[torch.dtype]]:
    """Floating types of what the modules give while the model runs in the block."""
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            seen.add(output.dtype)

    with contextlib.ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(note).remove)
        yield seen


def _noise(
    loss_of: _Evaluation, parameters: Sequence[nn.Parameter], generator: torch.Generator
) -> float:
    """Change of the loss that rounding may cause."""
    changes = [loss_of() - loss_of.base]  # not 0 where kernels add in any order
    for _ in range(JITTERS):
        with contextlib.ExitStack() as stack:
            for parameter in parameters:
                weight = parameter.detach()
                spacing = max(torch.finfo(weight.dtype).eps, loss_of.spacing)
                signs = _normal(weight, generator).sgn()
                stack.enter_context(holding(parameter, weight * (1 + spacing * signs)))
            changes.append(loss_of() - loss_of.base)
    rounding = SAFETY * max(_largest(changes), loss_of.resolution)
    return max(rounding, NEGLIGIBLE * abs(loss_of.base))


def _respond(
    loss_of: _Evaluation,
    parameter: nn.Parameter,
    noise: float,
    generator: torch.Generator,
) -> _Response:
    weight = parameter.detach()
    norms = _rows_of(weight).abs().float().norm(dim=1)
    if not norms.any():
        return _Response("none")
    turns = (_turned(weight, norms, generator), -weight)
    turn = _largest([loss_of.change(parameter, values) for values in turns])
    whole = np.array([loss_of.change(parameter, weight * r) for r in FACTORS])
    matrix = _largest(whole)
    if max(turn, matrix) <= noise:
        return _Response("unseen", matrix, turn=turn)
    if not _is_invariant(whole, turn, noise):
        return _Response("none", matrix, turn=turn)
    if weight.dim() < 2:
        return _Response("matrix", matrix, turn=turn)
    half = _half(norms, generator)
    parts = np.array(
        [loss_of.change(parameter, _scaled(weight, half, r)) for r in FACTORS]
    )
    granularity = "row" if _is_invariant(parts, turn, noise) else "matrix"
    return _Response(granularity, matrix, _largest(parts), turn)


def _largest(changes: Sequence[float] | FloatArray) -> float:
    """The largest change; a loss that is no number any more has changed for good."""
    sizes = np.abs(changes)
    return float(np.where(np.isnan(sizes), np.inf, sizes).max())


def _is_invariant(changes: FloatArray, turn: float, noise: float) -> bool:
    """Whether changes under rescaling by `FACTORS` leave nothing to explain."""
    largest = _largest(changes)
    if np.isinf(largest) or largest > FAINT * turn:
        return False
    if largest <= noise:
        return True
    # What an epsilon beside a variance v causes: v + eps turns into v + eps / r**2.
    expected = 1 - np.array(FACTORS) ** -2.0
    c = changes @ expected / (expected @ expected)
    misfit = np.abs(changes - c * expected)
    allowed: npt.NDArray[np.bool_] = misfit <= FAINT * np.abs(c * expected) + noise
    return bool(allowed.all())


def _rows_of(weight: torch.Tensor) -> torch.Tensor:
    """The weight as a matrix of rows; a vector or a number is one row."""
    return weight.reshape(weight.shape[0] if weight.dim() > 1 else 1, -1)


def _turned(
    weight: torch.Tensor, norms: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Rows in random directions, with their norms as they were."""
    drawn = _rows_of(_normal(weight, generator))
    scales: torch.Tensor = (norms / drawn.norm(dim=1)).to(weight.dtype)
    turned = drawn * scales.unsqueeze(1)
    return turned.reshape(weight.shape)


def _half(norms: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the rows that have a norm, by chance: boolean, shape (rows,)."""
    alive = norms.nonzero().flatten().cpu()
    chosen = alive[torch.randperm(len(alive), generator=generator)[: len(alive) // 2]]
    mask = torch.zeros(len(norms), dtype=torch.bool)
    mask[chosen] = True
    return mask.to(norms.device)


def _scaled(weight: torch.Tensor, rows: torch.Tensor, factor: float) -> torch.Tensor:
    column = rows.reshape(-1, *[1] * (weight.dim() - 1))
    return torch.where(column, weight * factor, weight)


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    drawn: torch.Tensor = torch.randn(like.shape, generator=generator)
    return drawn.to(like)
