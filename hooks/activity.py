"""Channels that are dead by what they give forward, over batches."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from dynoscope.errors import MeasurementError
from dynoscope.hooks.batches import generators_of, take
from dynoscope.hooks.frozen import frozen
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import Rows

__all__ = ["Forward", "activity_rows"]

Forward = Callable[[nn.Module, Any], object]
"""Runs the model on a batch; what it returns does not matter, so a loss will do."""

RECTIFIERS: Final = (nn.ReLU, nn.ReLU6, nn.Hardswish)
"""Activations that are exactly 0, with no gradient, over a half-line."""

NORMALIZATION: Final = nn.modules.batchnorm._BatchNorm
"""Looked at too: an activation that is called as a function has no module."""


@dataclasses.dataclass
class _Seen:
    """What one call of a module has given so far, over all batches."""

    kind: str
    alive: torch.Tensor  # per channel, whether it was ever positive
    values: int = 0


def activity_rows(
    watched: Watched,
    loader: Iterable[Any],
    forward: Forward,
    batches: int | None,
    channel_dim: int | None,
) -> Rows:
    """Rows of the `activity` table; training is not touched.

    Args:
        watched: whose model; it stays in the mode it is in.
        loader: the batches.
        forward: `forward(model, batch)` runs the model.
        batches: how many batches at most, None for all.
        channel_dim: dimension of the channels in what activations give; None is
            the last of three dimensions (samples, positions, channels), else
            the second.

    Raises:
        MeasurementError: no batches, or no module to look at was run.
    """
    model = watched.model
    seen: dict[str, _Seen] = {}
    count = 0
    with frozen(model, generators_of(loader)):
        for batch in take(loader, batches):
            with _observed(model, seen, channel_dim):
                forward(model, batch)
            count += 1
    if not seen:
        kinds = ", ".join(cls.__name__ for cls in RECTIFIERS)
        raise MeasurementError(
            f"forward ran no module of this {type(model).__name__} whose channels can "
            f"be counted: BatchNorm, {kinds}"
        )
    return Rows(
        "activity",
        {
            "layer": np.array(list(seen)),
            "kind": np.array([call.kind for call in seen.values()]),
            "batches": count,
            "channels": np.array([call.alive.numel() for call in seen.values()]),
            "dead": np.array([int((~call.alive).sum()) for call in seen.values()]),
            "values": np.array([call.values for call in seen.values()]),
        },
    )


@contextlib.contextmanager
def _observed(
    model: nn.Module, seen: dict[str, _Seen], channel_dim: int | None
) -> Iterator[None]:
    """Note what the model's activations give in the block: one batch."""
    calls: dict[str, int] = {}

    def observer(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def observe(module: nn.Module, args: Any, output: Any) -> None:
            # One module that is called in several places is several layers.
            calls[name] = calls.get(name, 0) + 1
            call = name if calls[name] == 1 else f"{name}#{calls[name]}"
            _note(seen, call, module, output.detach(), channel_dim)

        return observe

    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, (*RECTIFIERS, NORMALIZATION)):
                handle = module.register_forward_hook(observer(name))
                stack.callback(handle.remove)
        yield


def _note(
    seen: dict[str, _Seen],
    call: str,
    module: nn.Module,
    output: torch.Tensor,
    channel_dim: int | None,
) -> None:
    if output.dim() < 2:
        output = output.reshape(-1, 1)
    if channel_dim is None or isinstance(module, NORMALIZATION):
        sequences = output.dim() == 3 and not isinstance(module, NORMALIZATION)
        channel_dim = -1 if sequences else 1
    # What is not a number is not dead.
    alive = ~(output <= 0).movedim(channel_dim, 0).flatten(1).all(1)
    entry = seen.setdefault(call, _Seen(type(module).__name__, torch.zeros_like(alive)))
    if entry.alive.shape != alive.shape:
        raise MeasurementError(
            f"{call!r} gave {entry.alive.numel()} channels for one batch and "
            f"{alive.numel()} for another; pass channel_dim= to say which dimension "
            "has the channels"
        )
    entry.alive |= alive
    entry.values += output.numel() // max(alive.numel(), 1)
