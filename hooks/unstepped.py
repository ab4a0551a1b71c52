"""Why an optimizer that is watched was never stepped."""

import torch
from torch import nn

from dynoscope.hooks.subject import Moved, Watched

__all__ = ["Unstepped"]


class Unstepped:
    """Remembers how things stood when a watch began, to tell what did happen.

    Args:
        watched: what is watched.
    """

    def __init__(self, watched: Watched) -> None:
        self._model = watched.model
        self._before = [(moved, _state(moved)) for moved in watched.optimizers]

    def explain(self, part: int) -> str:
        """Say that an optimizer was not stepped, and the likely cause.

        Args:
            part: its index.
        """
        moved, before = self._before[part]
        name = type(moved.optimizer).__name__
        return (
            f"{name} was never stepped in the watch block, so that nothing of it was "
            f"measured: {_cause(moved, before, self._model)}"
        )


def _state(moved: Moved) -> tuple[list[int], list[object]]:
    """Versions of the parameters, which every change in place raises, and the lrs."""
    versions = [p._version for p in moved.parameters]
    groups = moved.optimizer.param_groups
    return versions, [_number(group.get("lr")) for group in groups]


def _number(lr: object) -> object:
    return float(lr) if isinstance(lr, torch.Tensor) else lr


def _cause(
    moved: Moved, before: tuple[list[int], list[object]], model: nn.Module
) -> str:
    versions, rates = _state(moved)
    present = {id(parameter) for parameter in model.parameters()}
    gradients = [p.grad for p in moved.parameters if p.grad is not None]
    if not any(id(parameter) in present for parameter in moved.parameters):
        return (
            "the model has other parameters by now; make the optimizer, and watch, "
            "after what replaces them (fully_shard, .to())"
        )
    if versions != before[0]:
        return (
            "its weights did change, so that something else steps them; watch the "
            "optimizer that does, not one that it wraps or replaces"
        )
    if gradients and not all(bool(grad.isfinite().all()) for grad in gradients):
        return (
            "its gradients are not finite, for which a GradScaler skips every step; "
            "lower its init_scale, or train in bfloat16"
        )
    if rates != before[1]:
        return (
            "its learning rate changed; is scheduler.step() called in its step's place?"
        )
    if gradients:
        return "it has gradients, but optimizer.step() was not called on this object"
    return (
        "it has no gradient either; was a copy of the model trained, or the model in "
        "another process?"
    )
