"""At which step a resumed training stands."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dynoscope.errors import UnwatchableError
from dynoscope.schedule import LONGEST

__all__ = ["Start", "checked_start", "first_step"]


class Start(NamedTuple):
    """Where a training goes on.

    Attributes:
        step: number of the next step.
        notes: what the user should know about it.
    """

    step: int
    notes: list[str]


def checked_start(start_step: Any) -> int | None:
    """The argument of `watch`, once it makes sense.

    Raises:
        UnwatchableError: it is no whole number, or negative.
    """
    if start_step is None:
        return None
    try:
        step = operator.index(start_step)
    except TypeError:
        step = -1
    if step < 0 or isinstance(start_step, bool):
        raise UnwatchableError(
            f"start_step={start_step!r}: pass the number of the next optimizer step, "
            "a whole number from 0 on; scope.step was it when the checkpoint was saved"
        )
    return step


def first_step(
    manifest: Mapping[str, Any],
    last_step: int | None,
    *,
    start_step: int | None,
    taken: int | None,
) -> Start:
    """Number of the first step that a resumed training takes.

    It is what the user says; else what the optimizer's own count of steps says, held
    against the pairs (step of the run, count) that the run noted whenever a training
    began or ended; else the one after the last step that is known.

    Args:
        manifest: of the run.
        last_step: last recorded step, None if there is none.
        start_step: what the user says.
        taken: steps that the optimizer has counted; 0 or None if it does not know.

    Raises:
        UnwatchableError: the optimizer has counted less than when the run began.
    """
    counted = manifest["progress"].get("counted", [])
    recorded = 0 if last_step is None else last_step + 1
    reached = max([recorded, *(step for step, _ in counted)])
    if start_step is not None:
        start = Start(start_step, [])
    elif taken and any(count is not None for _, count in counted):
        start = _by_count(counted, taken)
    else:
        start = Start(reached, [_unknown(manifest, reached)])
    if start.step > reached + _interval(manifest) - 1:
        gap = f"steps {reached} to {start.step - 1} were not recorded"
        start.notes.append(f"{gap}: they were lost, or taken without dynoscope")
    return start


def _interval(manifest: Mapping[str, Any]) -> int:
    """Most steps from one measurement to the next, as far as the run says."""
    every = manifest.get("every")
    if isinstance(every, int):
        return every
    return LONGEST if manifest.get("budget") is not None else 1


def _by_count(counted: Sequence[tuple[int, int | None]], taken: int) -> Start:
    pairs = [(step, count) for step, count in counted if count is not None]
    before = [pair for pair in pairs if pair[1] <= taken]
    if not before:
        raise UnwatchableError(
            f"the optimizer has taken {taken} steps, fewer than the {pairs[0][1]} that "
            "it had when the run began, so that its checkpoint is of before the run; "
            "pass start_step= to say where in the run it stands"
        )
    step, count = before[-1]
    start = step + taken - count
    later = pairs[pairs.index(before[-1]) + 1 :]
    silent = later[0][0] - later[0][1] - (step - count) if later else 0
    if not silent:
        return Start(start, [])
    note = (
        f"of the steps {step} to {later[0][0] - 1}, {silent} did nothing and were not "
        f"counted by the optimizer (an overflow under GradScaler): it is not known "
        f"which, so that step {start} may be up to {silent} too early; pass start_step="
    )
    return Start(start, [note])


def _unknown(manifest: Mapping[str, Any], step: int) -> str:
    return (
        f"{manifest['optimizer']['name']} does not say how many steps it has taken, so "
        f"the run goes on at step {step}, after all that is known of it; if the "
        "training has loaded an older checkpoint, pass start_step="
    )
