"""Curves of a run as they are drawn: all of it, and what is zoomed into in detail."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from dynoscope.dashboard.figures import POINTS, Curve
from dynoscope.dashboard.shown import Part, drawn, joined, part_of
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.track import Steps
from dynoscope.dashboard.tracks import Held
from dynoscope.measurement import FloatArray

__all__ = ["NO_POINTS", "curves_of", "mixed", "parts_of"]

NO_POINTS: Final = np.empty(0)

_GAPLESS: Final = ("groups", "neurons")
"""Tables in which NaN means that there is no row."""


def curves_of(
    state: RunState,
    table: str,
    name: Any,
    styles: Mapping[str, Curve],
    window: Steps | None = None,
) -> list[Curve]:
    """Columns of one curve of a table, those first that were asked for first.

    Args:
        state: the run.
        table: the table.
        name: a layer, a group, a name.
        styles: how each column is drawn.
        window: what is zoomed into; None for nothing.
    """
    found = []
    parts = parts_of(state, table, name, list(styles), window)
    for column, each in parts.items():
        whole, *fine = (
            drawn(styles[column], _gapless(part) if table in _GAPLESS else part)
            for part in each
        )
        found += joined(whole, fine[0]) if fine else [whole]
    return found


def parts_of(
    state: RunState,
    table: str,
    name: Any,
    columns: list[str],
    window: Steps | None = None,
) -> dict[str, list[Part]]:
    """For each column all of it, and then what is zoomed into, if there is more of it.

    None at all if there is no such curve.
    """
    with state.lock:
        held = state.held(table, name, columns)
        near = _zoomed(state, table, name, held, window)
        found = {}
        for column, whole in held.items():
            found[column] = [part_of(whole).only(whole.at)]
            if column in near:
                found[column].append(part_of(near[column], window).only(whole.at))
        return found


def mixed(
    parts: Sequence[tuple[np.ndarray, FloatArray]],
) -> tuple[np.ndarray, FloatArray]:
    """Steps and values of a curve, in more detail where the second part lies."""
    steps, values = parts[0]
    for fine, inner in parts[1:]:
        if len(fine):
            before = int(np.searchsorted(steps, fine[0]))
            after = int(np.searchsorted(steps, fine[-1], side="right"))
            steps = np.concatenate([steps[:before], fine, steps[after:]])
            values = np.concatenate([values[:before], inner, values[after:]])
    return steps, values


def _zoomed(
    state: RunState,
    table: str,
    name: Any,
    held: Mapping[str, Held],
    window: Steps | None,
) -> Mapping[str, Held]:
    """The columns of which there is more to see."""
    if window is None:
        return {}
    coarse = [column for column, each in held.items() if not each.track.is_exact]
    crowded = {
        column: each
        for column, each in held.items()
        if column not in coarse and len(each.steps) > POINTS
    }
    return {**crowded, **state.held(table, name, coarse, window)} if coarse else crowded


def _gapless(part: Part) -> Part:
    return part.where(~np.isnan(part.buckets.mean))
