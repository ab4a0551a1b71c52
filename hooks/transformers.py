"""The callback for the Trainer of transformers."""

import os
import weakref
from types import FrameType, TracebackType
from typing import Any, Self

from dynoscope.hooks.held import Held, InLoop, Scope

try:
    from transformers import (
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        "dynoscope.hooks.transformers needs transformers and accelerate: "
        'pip install "dynoscope[transformers]"'
    ) from error

__all__ = ["DynoscopeCallback"]

_open: "weakref.WeakSet[DynoscopeCallback]" = weakref.WeakSet()
"""Callbacks whose run is open."""


class DynoscopeCallback(TrainerCallback):
    """Watches what a Trainer trains, from the first step to the last.

        Trainer(..., callbacks=[DynoscopeCallback(run="runs/bert", every=10)])

    Steps are optimizer steps, with accumulation too. What the Trainer logs is
    recorded as it is: its `loss` is the mean since the last time, its `grad_norm`
    is before clipping, where `grad_l2` of dynoscope is after it. A training that
    starts from a checkpoint goes on in the run of that folder. TrainingArguments
    and the model's configuration are in the run's `config`, with your own.

    A Trainer tells nobody that a training has raised. The run is then closed as
    failed when the process ends or another Trainer begins, with the exception
    that came out of it. For a notebook, or where you catch it, end the run with
    `close(error)`, or by a block: `with DynoscopeCallback(...) as callback:`.

    Args:
        run: the run's folder; None makes one under `runs/` by date and model.
        **options: further arguments of `dynoscope.watch`.

    Raises:
        TypeError: an option that `dynoscope.watch` does not have.
    """

    def __init__(
        self, run: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        self._held = Held(run, options)

    @property
    def scope(self) -> "Scope | None":
        """The open run's `Scope`, to log and to measure on demand; None if closed."""
        return self._held.scope

    def close(self, error: BaseException | None = None) -> None:
        """Close the run, if it is open.

        Args:
            error: what ended the training, if an error did.
        """
        self._held.close(error)

    def __enter__(self) -> Self:
        """Begin a block at whose end the run is closed."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the run, as failed if an exception ended the block."""
        self.close(error)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Open the run."""
        # Training begins anew, with smaller batches, when memory has run out.
        again = args.auto_find_batch_size and self._held.is_left_open()
        for callback in list(_open):
            if callback._held.is_left_open():
                callback._held.abandon()
        model = kwargs["model"]
        self._held.open(
            model,
            kwargs["optimizer"],
            _config(args, model),
            start=state.global_step,
            again=again,
            in_loop=_loop_of(state),
        )
        _open.add(self)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Record what the Trainer logs."""
        self._held.log(kwargs["logs"])

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Close the run."""
        self.close()


def _config(args: TrainingArguments, model: Any) -> dict[str, Any]:
    to_dict = getattr(getattr(model, "config", None), "to_dict", dict)
    arguments = args.to_dict()  # type: ignore[no-untyped-call]
    return {"training_arguments": arguments, "model": to_dict()}


def _loop_of(state: TrainerState) -> InLoop:
    """Knows the frame of the Trainer that has this state."""

    def in_loop(frame: FrameType) -> bool:
        trainer = frame.f_locals.get("self")
        is_loop = frame.f_code.co_name == "_inner_training_loop"
        return is_loop and getattr(trainer, "state", None) is state

    return in_loop
