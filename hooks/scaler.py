"""Gradients under a GradScaler: undone for the sums, and which steps it calls off.

An ordinary optimizer is given unscaled gradients, and is not stepped at all where they
overflow. A fused one is stepped always, with gradients that are still scaled and the
tensors `grad_scale` and `found_inf` beside them; its kernels unscale, or move nothing.
"""

import sys
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from dynoscope.loss_scale import ScalerState
from dynoscope.measurement import Host, Measurement, Subject
from dynoscope.metrics.sums import Tensors, read_later

__all__ = ["Scaling", "only_scalers", "unscaled"]

_STEP: Final = GradScaler.step.__code__


class Scaling:
    """What scales the gradients of one optimizer, if anything does.

    Args:
        optimizer: as it is given to the scaler.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._scaler: weakref.ref[GradScaler] | None = None
        self._is_fresh = not optimizer.state  # it has never been stepped

    def of_gradients(self) -> Tensor | None:
        """By what the gradients of the step that begins are too large."""
        scale = self._told("grad_scale")
        return scale if isinstance(scale, Tensor) else None

    def read(self) -> Callable[[], ScalerState] | None:
        """Keep what the scaler is now, inside a step; nothing waits for a device."""
        scaler = _stepping()
        if scaler is not None:
            self._scaler = weakref.ref(scaler)
        found_inf = self._told("found_inf")
        fresh, self._is_fresh = self._is_fresh, False
        if scaler is None and found_inf is None:
            return None
        return _kept(scaler, self.of_gradients(), found_inf, fresh=fresh)

    def read_last(self) -> Callable[[], ScalerState] | None:
        """Keep what the scaler has come to after all steps."""
        scaler = None if self._scaler is None else self._scaler()
        return _kept(scaler, None, None, fresh=False) if scaler is not None else None

    def _told(self, name: str) -> object:
        # Some optimizers have such an attribute and do not look at it.
        if not getattr(self._optimizer, "_step_supports_amp_scaling", False):
            return None
        return getattr(self._optimizer, name, None)


def unscaled(grads: Tensors, scale: Tensor) -> list[Tensor | None]:
    """Copies of gradients as of the loss before it was scaled, in float32 at least."""
    scales = {scale.device: scale}
    return [grad if grad is None else _divided(grad, scale, scales) for grad in grads]


def only_scalers(
    subject: Subject, step: int, scalers: tuple[Callable[[], ScalerState] | None, ...]
) -> Measurement:
    """What scalers have come to since the last step; no optimizer stepped then."""
    layers, nothing = len(subject.layers), np.empty((0, 0))
    return Measurement(
        subject=subject,
        step=step,
        own_steps=(None,) * len(scalers),
        wall_time=time.time(),
        groups=tuple,
        has_grad=np.zeros(layers, bool),
        limits=np.full(layers, np.inf),
        fetch=lambda: Host(nothing, nothing, nothing),
        nbytes=0,
        hook_seconds=0.0,
        scalers=scalers,
    )


def _divided(grad: Tensor, scale: Tensor, scales: dict[torch.device, Tensor]) -> Tensor:
    if grad.device not in scales:
        scales[grad.device] = scale.to(grad.device, non_blocking=True)
    wide = torch.promote_types(grad.dtype, torch.float32)
    return grad.detach().to(wide) / scales[grad.device]


def _stepping() -> GradScaler | None:
    """The scaler that has called this step, if one has."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # Asked of any other frame, its locals would be kept alive by it.
        if frame.f_code is _STEP:
            scaler: GradScaler = frame.f_locals["self"]
            return scaler if scaler.is_enabled() else None
        frame = frame.f_back
    return None


def _kept(
    scaler: GradScaler | None,
    scale: Tensor | None,
    found_inf: object,
    *,
    fresh: bool,
) -> Callable[[], ScalerState]:
    # What is asked of a scaler in public waits for its device.
    scale_now = _later(getattr(scaler, "_scale", scale), np.nan)
    streak = _later(getattr(scaler, "_growth_tracker", None), 0)
    overflow = None if found_inf is None else _later(found_inf, 0)
    state = ScalerState()
    if scaler is not None:
        state = ScalerState(
            key=id(scaler),
            growth=scaler.get_growth_factor(),
            backoff=scaler.get_backoff_factor(),
            interval=scaler.get_growth_interval(),
            start=getattr(scaler, "_init_scale", np.nan) if fresh else np.nan,
        )
    return lambda: state._replace(
        scale=scale_now(),
        streak=int(streak()),
        overflowed=None if overflow is None else overflow() > 0,
    )


def _later(number: object, default: float) -> Callable[[], float]:
    if isinstance(number, Tensor):
        return read_later(number)
    return lambda: float(number) if isinstance(number, int | float) else default
