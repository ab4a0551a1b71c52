"""The two hooks around an optimizer's step."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.hooks import RemovableHandle

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.optimizers import box_limit, capture, imposed_rotation
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import GroupState, Measurement
from dynoscope.metrics.sums import Histograms, Kernel, Spec
from dynoscope.schedule import Schedule, log_spaced
from dynoscope.theory import DECOUPLED

__all__ = ["Sink", "Watcher"]

_attached: dict[int, "Watcher"] = {}
"""Watchers by the id of each optimizer and parameter they hold on to."""


class Sink(Protocol):
    """Where measurements go."""

    def has_room(self) -> bool:
        """Whether another measurement can be taken now."""

    def put(self, measurement: Measurement) -> None:
        """Take a measurement; never blocks."""

    def fail(self, part: str, error: Exception) -> None:
        """Note that a part of dynoscope failed and is off from now on."""


class Watcher:
    """Measures the steps of one optimizer, from `attach` to `detach`.

    Args:
        watched: what to measure.
        schedule: which steps to measure.
        histograms: whether to count what weights and gradients are, too.

    Attributes:
        step: number of steps taken, those of a resumed run's past included.
        skipped: measurements given up since the last one that was put.

    Raises:
        UnwatchableError: this optimizer, or one of these parameters, is being
            watched already.
    """

    def __init__(
        self, watched: Watched, schedule: Schedule, *, histograms: bool = False
    ) -> None:
        _refuse_double(watched)
        self.step = 0
        self._watched = watched
        self._rotational_groups = {
            layer.group for layer in watched.subject.layers if layer.rotational
        }
        self._schedule = schedule
        norms = {channels.layer for channels in watched.subject.normalization}
        self._kernel = Kernel(
            [
                Spec(parameter, rows=layer.rows > 0, channels=index in norms)
                for index, (parameter, layer) in enumerate(
                    zip(watched.parameters, watched.subject.layers, strict=True)
                )
            ]
        )
        self._histograms = Histograms(watched.parameters) if histograms else None
        self._histogram_due = log_spaced()
        self._handles: list[RemovableHandle] = []
        self._depth = 0
        self.skipped = 0
        self._open: _OpenStep | None = None

    def attach(self, sink: Sink, after_step: Callable[[], None] | None = None) -> None:
        """Register the hooks; measurements go to `sink`.

        Args:
            sink: where measurements go.
            after_step: called after every step, measured or not. What it raises is
                meant for the user, and comes out of the optimizer's step.
        """
        self._sink, self._after_step = sink, after_step
        for thing in (self._watched.optimizer, *self._watched.parameters):
            _attached[id(thing)] = self
        # torch.compile would trace into hooks; they are not for it to see.
        before = torch.compiler.disable(self._before)
        after = torch.compiler.disable(self._after)
        optimizer = self._watched.optimizer
        self._handles = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_post_hook(after),
        ]

    def detach(self) -> None:
        """Remove the hooks; calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for key in [key for key, watcher in _attached.items() if watcher is self]:
            del _attached[key]

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._depth and _step_calls(optimizer) > 1:
            self._depth += 1  # a subclass's step has called its parent's
            return
        self._depth, self._open = 1, None
        if not self._schedule(self.step):
            return
        if not self._sink.has_room():
            self.skipped += 1
            return
        try:
            self._open = self._measure_before(_has_closure(args, kwargs))
        except Exception as error:
            self._give_up(error)

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._open is not None:
            try:
                self._measure_after(self._open)
            except Exception as error:
                self._give_up(error)
            self._open = None
        self.step += 1
        if self._after_step is not None:
            self._after_step()

    def _measure_before(self, has_closure: bool) -> "_OpenStep":
        start = time.perf_counter()
        optimizer, adapter = self._watched.optimizer, self._watched.adapter
        # A closure computes the gradients inside the step: those here are stale.
        grads = [None if has_closure else _dense(p.grad) for p in self._parameters]
        momenta = [adapter.momentum(optimizer, p) for p in self._parameters]
        groups = [
            capture(group, self._rotation(index))
            for index, group in enumerate(optimizer.param_groups)
        ]
        limits = self._limits()
        counted = None
        if self._histograms is not None and self._histogram_due(self.step):
            counted = self._histograms.take(grads)
        self._kernel.before(grads, momenta, limits)
        return _OpenStep(grads, groups, limits, counted, time.perf_counter() - start)

    def _rotation(self, group: int) -> float:
        """The angle that the optimizer imposes on a group's layers, if it does."""
        if group not in self._rotational_groups:
            return math.nan
        optimizer = self._watched.optimizer
        return imposed_rotation(optimizer, optimizer.param_groups[group])

    def _limits(self) -> list[float]:
        """Per layer, half the width of the box that weight decay holds weights in."""
        subject = self._watched.subject
        groups = self._watched.optimizer.param_groups
        of_group = [
            box_limit(group) if kind in DECOUPLED else math.inf
            for group, kind in zip(groups, subject.optimizer.kinds, strict=True)
        ]
        return [
            # a norm that is kept knows no box
            math.inf if layer.rotational else of_group[layer.group]
            for layer in subject.layers
        ]

    def _measure_after(self, opened: "_OpenStep") -> None:
        start = time.perf_counter()
        optimizer, adapter = self._watched.optimizer, self._watched.adapter
        momenta = [adapter.momentum(optimizer, p) for p in self._parameters]
        layers = self._watched.subject.layers
        seconds = [
            adapter.second_moment(optimizer, p, layer.group)
            for p, layer in zip(self._parameters, layers, strict=True)
        ]
        self._kernel.after(opened.grads, momenta, seconds)
        fetch = self._kernel.ship()
        groups = opened.groups
        spent = opened.seconds + time.perf_counter() - start
        self._sink.put(
            Measurement(
                step=self.step,
                wall_time=time.time(),
                groups=lambda: tuple(read() for read in groups),
                has_grad=np.array([grad is not None for grad in opened.grads]),
                limits=np.array(opened.limits),
                fetch=fetch,
                nbytes=self._kernel.nbytes + self._histogram_bytes(opened),
                hook_seconds=spent,
                skipped=self.skipped,
                histograms=opened.histograms,
            )
        )
        self.skipped = 0

    def _histogram_bytes(self, opened: "_OpenStep") -> int:
        if self._histograms is None or opened.histograms is None:
            return 0
        return self._histograms.nbytes

    def _give_up(self, error: Exception) -> None:
        self._open = None
        self.detach()
        self._sink.fail("measuring", error)

    @property
    def _parameters(self) -> tuple[torch.nn.Parameter, ...]:
        return self._watched.parameters


@dataclasses.dataclass(frozen=True)
class _OpenStep:
    """What the pre-hook hands to the post-hook."""

    grads: list[torch.Tensor | None]
    groups: list[Callable[[], GroupState]]
    limits: list[float]
    histograms: Callable[[], npt.NDArray[np.int64]] | None
    seconds: float


def _refuse_double(watched: Watched) -> None:
    if id(watched.optimizer) in _attached:
        raise UnwatchableError(
            "this optimizer is being watched already; leave the first "
            "dynoscope.watch block before opening another"
        )
    layers = watched.subject.layers
    for parameter, layer in zip(watched.parameters, layers, strict=True):
        if id(parameter) in _attached:
            raise UnwatchableError(
                f"{layer.name!r} is in two watched optimizers; its steps could "
                f"not be told apart. Pass exclude={layer.name!r} to one watch"
            )


def _dense(grad: torch.Tensor | None) -> torch.Tensor | None:
    return grad.to_dense() if grad is not None and grad.is_sparse else grad


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # Hooks are given the arguments of step with or without self, by version.
    candidates = (*args, kwargs.get("closure"))
    return any(callable(c) for c in candidates)


def _step_calls(optimizer: torch.optim.Optimizer) -> int:
    """How many calls of this optimizer's step are running now.

    Tells a step inside a step from a step after one that raised: torch runs no
    post-hook when a step raises, so counting hooks alone would lose track.
    """
    calls = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if "profile_hook_step" in frame.f_code.co_qualname:
            calls += frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return calls
