"""The tracker for Accelerate: what is logged and what is measured, in one run."""

import os
import sys
import warnings
from collections.abc import Mapping
from types import FrameType
from typing import Any

from dynoscope.errors import DynoscopeWarning
from dynoscope.hooks.held import Held, Scope

try:
    from accelerate.tracking import GeneralTracker
except ModuleNotFoundError as error:
    raise ImportError(
        "dynoscope.hooks.accelerate needs accelerate: "
        'pip install "dynoscope[accelerate]"'
    ) from error

__all__ = ["DynoscopeTracker"]


class DynoscopeTracker(GeneralTracker):  # type: ignore[misc]
    """Watches what a loop with an Accelerator trains, and records what it logs.

        tracker = DynoscopeTracker(run="runs/vit", every=10)
        accelerator = Accelerator(log_with=tracker)
        accelerator.init_trackers("vit", config)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        tracker.watch(model, optimizer)
        ...  # your loop; accelerator.log({"loss": loss}) as ever
        accelerator.end_training()

    The step that `accelerator.log` is given is ignored: numbers belong to the last
    update of the weights. A loop that raises leaves the run open until the process
    ends; it is then closed as failed. `with dynoscope.watch(model, optimizer)` takes
    the same objects, and closes at once.

    Args:
        run: the run's folder; None makes one under `runs/` by date and model.
        **options: further arguments of `dynoscope.watch`.

    Raises:
        TypeError: an option that `dynoscope.watch` does not have.
    """

    name = "dynoscope"
    requires_logging_directory = False

    def __init__(
        self, run: str | os.PathLike[str] | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._held = Held(run, options)
        self._config: Mapping[str, Any] = {}

    @property
    def tracker(self) -> "Scope | None":
        """The open run's `Scope`, to log and to measure on demand; None if closed."""
        return self._held.scope

    def watch(self, model: Any, optimizer: Any, *, start_step: int = 0) -> None:
        """Open the run.

        Args:
            model: the model that is trained, prepared.
            optimizer: its optimizer, prepared.
            start_step: optimizer steps taken up to the state that was loaded; the
                training then goes on in the run of that folder.

        Raises:
            DynoscopeError: as `dynoscope.watch` does.
        """
        self._held.open(
            model, optimizer, self._config, start=start_step, in_loop=_in_script
        )

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Take the configuration that `init_trackers` was given."""
        if self.tracker is not None:
            warnings.warn(
                "the run is open already, and will not know its configuration; call "
                "accelerator.init_trackers before tracker.watch",
                DynoscopeWarning,
                stacklevel=2,
            )
        self._config = dict(values)

    def log(
        self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Record the numbers among the values."""
        self._held.log(values)

    def finish(self, error: BaseException | None = None) -> None:
        """Close the run, if it is open.

        Args:
            error: what ended the training, if an error did.
        """
        self._held.close(error)


def _in_script(frame: FrameType) -> bool:
    """Whether it is a frame of a program, where what is not caught ends all."""
    return not hasattr(sys, "ps1")
