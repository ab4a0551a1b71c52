"""A run that is opened and closed by calls, where no block fits around the loop."""

import atexit
import inspect
import numbers
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, TypeAlias

import torch

import dynoscope

__all__ = ["Held", "InLoop", "Scope"]

Scope: TypeAlias = "dynoscope.Scope"
InLoop: TypeAlias = Callable[[FrameType], bool]
"""Whether a frame is that of the training loop that a run belongs to."""


class TrainingStoppedError(Exception):
    """A training ended and did not say so; what it raised, if it did, is not known."""


class Held:
    """The run of a callback: at most one open at a time, under the same options.

    A run that nobody closes is closed when this object goes, at the end of the
    interpreter at the latest, and is marked as failed. Copies and pickles of it
    have no open run.

    Args:
        run: the run's folder, as `dynoscope.watch` takes it.
        options: further arguments of `dynoscope.watch`.

    Raises:
        TypeError: an option that `dynoscope.watch` does not have.
    """

    def __init__(
        self, run: str | os.PathLike[str] | None, options: Mapping[str, Any]
    ) -> None:
        inspect.signature(dynoscope.watch).bind(None, None, run=run, **options)
        self._options = {"run": run, **options}
        self._open: _Open | None = None

    @property
    def scope(self) -> "Scope | None":
        """The open run's scope."""
        return self._open.scope if self._open is not None else None

    def open(
        self,
        model: Any,
        optimizer: Any,
        config: Mapping[str, Any],
        *,
        run: str | None = None,
        start: int = 0,
        again: bool = False,
        in_loop: InLoop | None = None,
    ) -> None:
        """Start to watch.

        Args:
            model: as `dynoscope.watch` takes it.
            optimizer: likewise.
            config: what the framework knows of the training; what the user says in
                the option `config` goes before.
            run: the folder to go on in, if the user named none.
            start: optimizer steps that were taken up to the checkpoint that the
                training starts from: it goes on in its run, if that is there.
            again: whether the training starts over, and its run with it.
            in_loop: knows the frame of the training loop, to find out later what
                has ended it.

        Raises:
            DynoscopeError: as `dynoscope.watch` does.
        """
        self.close(TrainingStoppedError("another training has begun"))
        options = dict(self._options)
        if options["run"] is None:
            options["run"] = run
        options["config"] = {**config, **_mapping(options.get("config"))}
        if again:
            options |= {"resume": False, "overwrite": True}
        elif start and not options.get("overwrite"):
            options = {"start_step": start, **options, "resume": True}
        self._open = _Open(self, dynoscope.watch(model, optimizer, **options), in_loop)

    def close(self, error: BaseException | None = None) -> None:
        """Close the run, if it is open.

        Args:
            error: what ended the training, if an error did.
        """
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close(error)

    def log(self, values: Mapping[str, Any]) -> None:
        """Record the numbers among some values, for the update that was the last."""
        if self._open is not None:
            scope = self._open.scope
            scope.log(step=max(scope.step - 1, 0), **_numbers(values))

    def is_left_open(self) -> bool:
        """Whether the run is open, and the loop that it belongs to runs no more."""
        return (
            self._open is not None
            and self._open.in_loop is not None
            and not _runs_now(self._open.in_loop)
        )

    def abandon(self) -> None:
        """Close a run that was left open, with the error that ended its training."""
        if self._open is not None:
            self.close(self._open.what_ended_it())

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has: the options."""
        return {"_options": self._options, "_open": None}


class _Open:
    """An open run, and how it is closed: by a call, or when nobody can call any more.

    Args:
        owner: who closes it. Nothing here keeps it alive.
        watch: the watch, not entered yet.
        in_loop: knows the frame of the training loop.
    """

    def __init__(
        self,
        owner: object,
        watch: AbstractContextManager[Any],
        in_loop: InLoop | None,
    ) -> None:
        self._watch, self.in_loop = watch, in_loop
        self.scope: Scope = watch.__enter__()
        self._finalizer = weakref.finalize(owner, self.abandon)
        self._finalizer.atexit = False
        # What is registered last comes first: before a watch's own end, which does
        # not know of the loop.
        atexit.register(self.abandon)

    def close(self, error: BaseException | None) -> None:
        self._finalizer.detach()
        atexit.unregister(self.abandon)
        if error is None:
            self._watch.__exit__(None, None, None)
        else:
            self._watch.__exit__(type(error), error, error.__traceback__)

    def abandon(self) -> None:
        # Garbage is collected on any thread: on the writer's own, too, which cannot
        # wait for itself.
        if threading.current_thread().name.startswith("dynoscope"):
            threading.Thread(target=self.abandon).start()
        else:
            self.close(self.what_ended_it())

    def what_ended_it(self) -> BaseException:
        """The error that nobody has caught, if it came through this loop."""
        error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        if isinstance(error, BaseException) and self.in_loop is not None:
            if any(self.in_loop(frame) for frame in _frames(error.__traceback__)):
                return error
        return TrainingStoppedError("the training ended before it was done")


def _runs_now(in_loop: InLoop) -> bool:
    """Whether a loop is on the stack of any thread."""
    for frame in sys._current_frames().values():
        at: FrameType | None = frame
        while at is not None:
            if in_loop(at):
                return True
            at = at.f_back
    return False


def _frames(traceback: TracebackType | None) -> list[FrameType]:
    frames = []
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return frames


def _mapping(config: Any) -> Mapping[str, Any]:
    """What people have as configurations: a mapping, a dataclass, a namespace."""
    if config is None:
        return {}
    return config if isinstance(config, Mapping) else vars(config)


def _numbers(values: Mapping[str, Any]) -> dict[str, float | torch.Tensor]:
    # `step` is what frameworks call the axis.
    return {
        name: value
        for name, value in values.items()
        if name not in ("self", "step") and _is_number(value)
    }


def _is_number(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, numbers.Real)
