"""Whether kernels in Triton can be used on a device, and what takes over if they fail.

They take Triton, which comes with torch for CUDA, and a GPU of compute capability 8.0;
`DYNOSCOPE_NATIVE=0` turns them off. On each device they are first held against torch's
own operations, on a few small layers. On the CPU, they have run in Triton's interpreter
alone.

`torch.compile` could fuse the sums as well. For the CPU it took 23 s to compile what
reads and writes the parameters 8.6 times, where the kernel in C is there in two seconds
and does so 6 times; for a GPU it would write kernels in Triton, for each shape its own.
"""

import contextlib
import functools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from dynoscope.measurement import Host
from dynoscope.metrics.packing import Packing
from dynoscope.metrics.sums.blocks import Apart, Block, Views
from dynoscope.metrics.sums.fused import CODES, Fused, kernels
from dynoscope.metrics.sums.native import SWITCH
from dynoscope.metrics.sums.pack import Pack
from dynoscope.metrics.sums.room import Room
from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.sums.tensors import (
    SecondMoment,
    SecondMoments,
    Tensors,
    is_dense,
)
from dynoscope.sharding import local

__all__ = ["DEVICES", "Guarded", "is_supported"]

DEVICES: Final = ["cuda"]
"""Types of devices that the kernels are for."""

CAPABILITY: Final = (8, 0)
"""The oldest GPU that Triton is made for."""

CLOSE: Final = 1e-4
"""How far, relative to each other, two ways to take a sum may be apart."""

logger = logging.getLogger("dynoscope")


def is_supported(parameter: Tensor) -> bool:
    """Whether the kernels take the sums of this parameter."""
    return (
        parameter.device.type in DEVICES
        and parameter.dtype in CODES
        and os.environ.get(SWITCH, "1") != "0"
        and local(parameter).numel() > 0
        and is_dense(local(parameter))
        and _works(parameter.device)
    )


class Guarded:
    """The kernels; where they raise, torch's operations from then on.

    They have not kept the weights of before the step, and cannot take over after it:
    the error costs a measurement then.
    """

    is_finite: bool | None = None

    def __init__(
        self, specs: Sequence[Spec], views: Views, kept: Sequence[Tensor]
    ) -> None:
        self._block: Block = Fused(specs, views, kept)
        self.sums = views[0]
        self._instead = functools.partial(Apart, specs, views, kept)

    @torch.no_grad()
    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        *,
        again: bool = False,
    ) -> None:
        """See `Block`."""
        used = self._block
        try:
            with self._giving_up():
                used.before(grads, momenta, limits, again=again)
        except Exception:
            if again or self._block is used:
                raise
            self._block.before(grads, momenta, limits)

    @torch.no_grad()
    def after(self, grads: Tensors, seconds: SecondMoments) -> None:
        """See `Block`."""
        with self._giving_up():
            self._block.after(grads, seconds)

    def count(self, grads: Tensors, momenta: Tensors) -> None:
        """See `Block`."""
        with self._giving_up():
            self._block.count(grads, momenta)

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not isinstance(self._block, Apart):
                _say(self.sums.device, error)
                self._block = self._instead()
            raise


@functools.cache
def _works(device: torch.device) -> bool:
    """Whether the kernels are there for a device, and do what torch does."""
    try:
        if device.type == "cuda":
            capability = torch.cuda.get_device_capability(device)
            if capability < CAPABILITY:
                logger.debug("Triton needs compute capability 8.0: %s", device)
                return False
        kernels()
    except ImportError as error:
        logger.debug("no Triton: %s", error)
        return False
    try:
        _check(device)
    except Exception as error:
        _say(device, error)
        return False
    return True


def _say(device: torch.device, error: Exception) -> None:
    logger.warning(
        "dynoscope: torch's operations take the sums on %s, which is slower, since "
        "kernels in Triton failed: %s: %s",
        device,
        type(error).__name__,
        error,
    )


def _check(device: torch.device) -> None:
    """Hold the kernels against torch's operations.

    Raises:
        ArithmeticError: they do not agree.
    """
    fused, plain = (_example(make, device) for make in (Fused, Apart))
    for name in ("sums", "rows", "channels"):
        found, wanted = getattr(fused, name), getattr(plain, name)
        if not np.allclose(found, wanted, rtol=CLOSE, atol=0):
            raise ArithmeticError(f"{name} are not those that torch's operations give")


def _example(make: type[Fused | Apart], device: torch.device) -> Host:
    """Sums of a few layers that are the same each time, and none near 0."""
    shapes = [(300, 5), (70, 90), (3, 5000), (20_000,), (40,)]
    kinds = [*CODES, torch.float32, torch.float32]

    def draw(seed: float, scale: float = 1.0) -> list[Tensor]:
        """Waves, since random numbers are the training's."""
        drawn = []
        for shape, kind in zip(shapes, kinds, strict=True):
            at = torch.arange(math.prod(shape), dtype=torch.float64, device="cpu")
            wave = scale * (2 + torch.sin((seed + 1) * at)).reshape(shape)
            drawn.append(wave.to(device, kind))
        return drawn

    weights = draw(0)
    specs = [
        Spec(w, rows=w.dim() > 1, channels=w.numel() == 40, means="triton")
        for w in weights
    ]
    packing = Packing([[spec.columns(k) for k, spec in enumerate(specs)]])
    pack = Pack(packing.shapes(0), torch.float32, device)
    room = Room(specs)
    block = make(specs, pack.claim(specs), [room.of(spec) for spec in specs])
    grads, momenta = draw(0.1), draw(0.2)
    block.before(grads, momenta, [2.5] * len(specs))
    for weight, update in zip(weights, draw(0.3, 0.1), strict=True):
        weight += update
    block.after(grads, [SecondMoment(v, 0.5, 1e-8) for v in draw(0.4)])
    block.count(grads, momenta)
    return packing.unpack([pack.flat.cpu().numpy()])
