"""The error tree: everything dynoscope raises on purpose.

Each message says what happened, where, and what to do about it.
"""

__all__ = [
    "DynoscopeError",
    "DynoscopeWarning",
    "FindingError",
    "MeasurementError",
    "RunExistsError",
    "RunNotFoundError",
    "ScheduleError",
    "StoreError",
    "TheoryError",
    "UncomparableError",
    "UnwatchableError",
]


class DynoscopeError(Exception):
    """Base of every error that dynoscope raises on purpose."""


class UnwatchableError(DynoscopeError, ValueError):
    """The model, the optimizer or the arguments cannot be watched as given."""


class MeasurementError(DynoscopeError, ValueError):
    """A measurement cannot be taken with what it was given."""


class ScheduleError(DynoscopeError, ValueError):
    """A measuring schedule makes no sense (`every=0`)."""


class RunExistsError(DynoscopeError, FileExistsError):
    """The run folder already holds a run, or something else."""


class RunNotFoundError(DynoscopeError, FileNotFoundError):
    """A path holds no readable dynoscope run."""


class StoreError(DynoscopeError, OSError):
    """A store refuses, or cannot be reached; the message says which, and the cure.

    Attributes:
        cause: `no permission`, `no such bucket`, `unreachable`, or "" for another.
    """

    cause: str = ""


class TheoryError(DynoscopeError, ValueError):
    """Hyperparameters outside the range in which a formula means anything."""


class FindingError(DynoscopeError, RuntimeError):
    """A rule found an error, and `watch(on_finding="raise")` asked for this."""


class UncomparableError(DynoscopeError, ValueError):
    """Two runs share nothing that could be compared."""


class DynoscopeWarning(UserWarning):
    """Something was skipped, lost or switched off; the message says what."""
