"""Sections of a step's rows, of which one may fail without harm to the others."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Sections"]

_T = TypeVar("_T")


class Sections:
    """Runs what makes the rows of a section; goes on without them where it fails.

    Attributes:
        errors: the first error of each section that failed, by what to say of it.
    """

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}

    def attempt(self, section: str, work: Callable[[], dict[str, _T]]) -> dict[str, _T]:
        """Do the work of a section.

        Args:
            section: what it makes.
            work: makes it; tried anew at every call, whatever has failed before.

        Returns:
            What the work gives; nothing if it fails.
        """
        try:
            return work()
        except Exception as error:
            self.errors.setdefault(f"{section} could not be recorded", error)
            return {}
