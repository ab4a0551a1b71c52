"""Where measurements go, as the hooks know it."""

from collections.abc import Sized
from typing import Protocol

from dynoscope.measurement import Measurement, Work

__all__ = ["News", "Sink"]


class Sink(Protocol):
    """Where measurements go."""

    @property
    def work(self) -> Work:
        """What has been done with measurements, besides the training's thread."""

    def has_room(self) -> bool:
        """Whether another measurement can be taken now."""

    def put(self, measurement: Measurement) -> None:
        """Take a measurement; never blocks."""

    def note(self, problem: str) -> None:
        """Note what the user should know, once."""

    def fail(self, problem: str, error: Exception) -> None:
        """Note an error of dynoscope's own; raise it where that is wanted."""


class News(Protocol):
    """What the user is to be told."""

    @property
    def waiting(self) -> Sized:
        """What is there to be told."""

    def deliver(self) -> None:
        """Tell it, on the user's thread; may raise what is meant for the user."""
