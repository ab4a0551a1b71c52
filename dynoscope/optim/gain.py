"""Learnable gains for weights whose norm the optimizer keeps."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dynoscope.optim._turned_blocks import PER, Per

__all__ = ["Gain", "add_gain", "fold_gain"]

Chosen: TypeAlias = Callable[[str, nn.Module], bool]


class Gain(nn.Module):
    """A learnable scale of a weight, one for every row or one for all.

    Args:
        weight: the weight to scale; the gain starts at 1, in its dtype.
        per: "row": one gain an output, shape (rows, 1, ...), of the first
            dimension; "tensor": a single one, shape (1, ..., 1).

    Raises:
        ValueError: per is neither.

    Source: Kosson et al. 2024, "Rotational Equilibrium", appendix M.
    """

    def __init__(self, weight: Tensor, per: Per = "row") -> None:
        super().__init__()
        if per not in PER:
            raise ValueError(f"per must be one of 'row', 'tensor', got {per!r}")
        rows = weight.shape[:1] if per == "row" else (1,)
        shape = (*rows, *[1] * (weight.ndim - 1))
        self.gain = nn.Parameter(weight.detach().new_ones(shape))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, scaled; of its shape."""
        return weight * self.gain


def add_gain(
    model: nn.Module, *, per: Per = "row", chosen: Chosen | None = None
) -> list[nn.Parameter]:
    """Scale weights by a learnable gain each, which starts at 1 and changes nothing.

    A rotational optimizer keeps the norm of a weight; where it matters, because no
    normalization follows, a gain can learn it. Before the optimizer is made:

    >>> import torch
    >>> from dynoscope.optim import Rotational, add_gain, fold_gain
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    >>> gains = add_gain(model)
    >>> rest = [p for p in model.parameters() if all(p is not gain for gain in gains)]
    >>> groups = [
    ...     {"params": rest},
    ...     {"params": gains, "rotational": False, "weight_decay": 0.0},
    ... ]
    >>> optimizer = Rotational(torch.optim.AdamW(groups, weight_decay=0.1))
    >>> fold_gain(model)  # after training
    Sequential(
      (0): Linear(in_features=8, out_features=4, bias=True)
    )

    Args:
        model: a layer, or a model of which every linear and convolutional layer
            gains one. A layer becomes a parametrized one: its weight is
            ``layer.parametrizations.weight.original`` in a state dict.
        per: "row", "tensor": what has a gain of its own.
        chosen: which layers, from their name and themselves, instead of all
            linear and convolutional ones; each must have a ``weight``.

    Returns:
        The gains, to put into a group of their own.

    Raises:
        ValueError: no layer is there to scale, or one has a gain already.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if (chosen or _is_linear)(name, layer)
    }
    if not layers:
        raise ValueError(
            "no layer to scale: there is no linear or convolutional one in "
            f"{type(model).__name__}; name yours with chosen="
        )
    for name, layer in layers.items():
        if _has_gain(layer):
            raise ValueError(f"'{name}' has a gain already; fold it first, or leave it")
    gains = [Gain(layer.weight, per) for layer in layers.values()]
    for layer, gain in zip(layers.values(), gains, strict=True):
        parametrize.register_parametrization(layer, "weight", gain)
    return [gain.gain for gain in gains]


@torch.no_grad()
def fold_gain(model: nn.Module) -> nn.Module:
    """Multiply every gain into its weight and take the parametrization away.

    Args:
        model: a layer or a model; of its layers, those with a `Gain` are folded.

    Returns:
        The model itself, which computes the same as before.
    """
    for layer in list(model.modules()):
        if _has_gain(layer):
            parametrize.remove_parametrizations(
                layer, "weight", leave_parametrized=True
            )
    return model


def _is_linear(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)


def _has_gain(layer: nn.Module) -> bool:
    if not parametrize.is_parametrized(layer, "weight"):
        return False
    chain = layer.get_submodule("parametrizations.weight")
    return any(isinstance(each, Gain) for each in chain.children())
