"""See how the optimizer is really moving the weights.

    import dynoscope
    with dynoscope.watch(model, optimizer, run="runs/lion") as scope:
        ...  # your training loop

Importing this package loads no torch; `dynoscope.watch` does, when it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynoscope.calculator import Prediction, predict
    from dynoscope.errors import (
        DynoscopeError,
        DynoscopeWarning,
        FindingError,
        MeasurementError,
        RunExistsError,
        RunNotFoundError,
        ScheduleError,
        StoreError,
        TheoryError,
        UncomparableError,
        UnwatchableError,
    )
    from dynoscope.fleet import Fleet, open_fleet
    from dynoscope.hooks import register_optimizer
    from dynoscope.reader import Run, find_runs, open_run
    from dynoscope.remote import Remote
    from dynoscope.scope import Scope
    from dynoscope.session import watch

_HOMES = {
    "DynoscopeError": "errors",
    "DynoscopeWarning": "errors",
    "FindingError": "errors",
    "Fleet": "fleet",
    "MeasurementError": "errors",
    "Prediction": "calculator",
    "Remote": "remote",
    "Run": "reader",
    "RunExistsError": "errors",
    "RunNotFoundError": "errors",
    "ScheduleError": "errors",
    "Scope": "scope",
    "StoreError": "errors",
    "TheoryError": "errors",
    "UncomparableError": "errors",
    "UnwatchableError": "errors",
    "find_runs": "reader",
    "open_fleet": "fleet",
    "open_run": "reader",
    "predict": "calculator",
    "register_optimizer": "hooks",
    "watch": "session",
}

__version__ = "0.1.0"
__all__ = [
    "DynoscopeError",
    "DynoscopeWarning",
    "FindingError",
    "Fleet",
    "MeasurementError",
    "Prediction",
    "Remote",
    "Run",
    "RunExistsError",
    "RunNotFoundError",
    "ScheduleError",
    "Scope",
    "StoreError",
    "TheoryError",
    "UncomparableError",
    "UnwatchableError",
    "find_runs",
    "open_fleet",
    "open_run",
    "predict",
    "register_optimizer",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dynoscope' has no attribute {name!r}")
    home = importlib.import_module(f"dynoscope.{_HOMES[name]}")
    return getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
