"""What stands in for a watch where dynoscope itself could not start."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch

from dynoscope.errors import MeasurementError
from dynoscope.hooks import ALONE
from dynoscope.measurement import Rows, ScalarEntry

__all__ = ["Blind", "unwatched"]

logger = logging.getLogger("dynoscope")


class Blind:
    """Takes the places of watcher and recorder: counts steps and records nothing.

    Args:
        error: why dynoscope could not start.

    Attributes:
        processes: as if there were no others.
    """

    processes = ALONE

    def __init__(self, error: Exception) -> None:
        self._error = error
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """Steps taken, by the optimizer that has taken most."""
        return max(self._taken.values(), default=0)

    def count(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """A hook after an optimizer's step."""
        self._taken[id(optimizer)] = self._taken.get(id(optimizer), 0) + 1

    @property
    def watched(self) -> NoReturn:
        """Nothing.

        Raises:
            MeasurementError: always.
        """
        self._refuse()

    def log(self, entry: ScalarEntry) -> None:
        """Forget a number that the user logs."""

    def record(self, rows: Rows) -> NoReturn:
        """Nothing can be recorded.

        Raises:
            MeasurementError: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MeasurementError(
            f"dynoscope could not start ({type(self._error).__name__}: {self._error}), "
            "so that it cannot measure on demand either"
        )


@contextlib.contextmanager
def unwatched(optimizer: Any, error: Exception) -> Iterator[Blind]:
    """Let a training go on without dynoscope; say why.

    Args:
        optimizer: what `watch` was given.
        error: why it could not start.
    """
    logger.warning(
        "dynoscope: could not start; training goes on unwatched (%s: %s)",
        type(error).__name__,
        error,
    )
    blind = Blind(error)
    with contextlib.ExitStack() as stack:
        for each in _listed(optimizer):
            if isinstance(each, torch.optim.Optimizer):
                stack.callback(each.register_step_post_hook(blind.count).remove)
        yield blind


def _listed(optimizer: Any) -> Sequence[Any]:
    if isinstance(optimizer, Mapping):
        return list(optimizer.values())
    return optimizer if isinstance(optimizer, Sequence) else [optimizer]
