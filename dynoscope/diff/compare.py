"""`diff`: two runs to what differs between them."""

import os
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.comparison import Comparison, Pairing
from dynoscope.diff.configuration import compare_configuration
from dynoscope.diff.result import CommonSteps, Diff, Side
from dynoscope.diff.scalars import compare_scalars
from dynoscope.diff.stretches import Half, stretches
from dynoscope.errors import UncomparableError
from dynoscope.reader import Extent, Run, open_run
from dynoscope.schema import TABLES

__all__ = ["diff"]

RunLike: TypeAlias = Run | str | os.PathLike[str]
Steps: TypeAlias = int | slice | range | tuple[int, int] | None
IntArray: TypeAlias = npt.NDArray[np.int64]

COMPARED = TABLES["layers"].names("measured", "setting", "predicted")


def diff(
    a: RunLike,
    b: RunLike,
    *,
    steps: Steps = None,
    threshold: float = 0.1,
    progress: Callable[[float], None] | None = None,
) -> Diff:
    """Compare two runs over the steps that both measured.

    Either may still be running: what it has so far is compared.

    Args:
        a: a run, or its folder: the one to hold against.
        b: the other: a positive relative difference means that b is larger.
        steps: only these: a step, `(start, stop)`, a slice or a range; stop is
            excluded.
        threshold: when two numbers count as different; .1 is 10 % for positive
            quantities, .1 for cosines and shares (`dynoscope.diff.difference`).
        progress: told now and then which share of the steps has been compared.

    Raises:
        RunNotFoundError: there is no readable run; the message says why.
        UncomparableError: no layer, or no measured step, in common.
    """
    run_a, run_b = (r if isinstance(r, Run) else open_run(r) for r in (a, b))
    shared = _shared_layers(run_a, run_b)
    extents = [run.extents() for run in (run_a, run_b)]
    common = _common_steps((run_a, run_b), extents, steps)
    modules = [name for name in run_a.roll_ups if name in set(run_b.roll_ups)]
    pairing = Pairing(
        run_a.layer_names,
        run_b.layer_names,
        modules,
        (run_a.manifest, run_b.manifest),
    )
    found = Comparison("layers", COMPARED, pairing, threshold)
    _go_over((run_a, run_b), extents, common.numbers, found, progress)
    config, config_equal = compare_configuration(run_a.manifest, run_b.manifest)
    return Diff(
        a=_side(run_a),
        b=_side(run_b),
        steps=common,
        threshold=threshold,
        config=config,
        config_equal=config_equal,
        layers=found.layers(shared),
        roll_ups=found.modules(),
        curves=found.curves(),
        normalization=_compare_normalization(run_a, run_b, common.numbers, threshold),
        scalars=compare_scalars(run_a, run_b, lambda s: _chosen(s, steps)),
        only_a=[name for name in run_a.layer_names if name not in shared],
        only_b=[name for name in run_b.layer_names if name not in shared],
    )


def _shared_layers(a: Run, b: Run) -> list[str]:
    in_b = set(b.layer_names)
    shared = [name for name in a.layer_names if name in in_b]
    if not shared:
        raise UncomparableError(
            f"no layer in common: {a.path} has {_few(a.layer_names)}; {b.path} has "
            f"{_few(b.layer_names)}. Compare runs of the same model, or watch the "
            "part they share under the same parameter names"
        )
    return shared


def _few(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def _common_steps(
    runs: tuple[Run, Run], extents: Sequence[Sequence[Extent]], steps: Steps
) -> CommonSteps:
    in_a, in_b = (_steps_of(each) for each in extents)
    common = _chosen(np.intersect1d(in_a, in_b, assume_unique=True), steps)
    if not len(common):
        within = "" if steps is None else f" within steps={steps}"
        a, b = runs
        raise UncomparableError(
            f"no measured step in common{within}: {a.path} has {_extent(in_a)}; "
            f"{b.path} has {_extent(in_b)}. Record both with an every= of which one "
            "divides the other, or wait until both have come as far"
        )
    return CommonSteps(common, of_a=len(in_a), of_b=len(in_b))


def _steps_of(extents: Sequence[Extent]) -> IntArray:
    return np.unique(
        np.concatenate([np.empty(0, np.int64), *(e.steps for e in extents)])
    )


def _extent(steps: IntArray) -> str:
    if not len(steps):
        return "none yet"
    return f"{len(steps)} measured steps from {steps[0]} to {steps[-1]}"


def _chosen(numbers: IntArray, steps: Steps) -> IntArray:
    """Those of the step numbers that `steps` asks for."""
    if steps is None:
        return numbers
    if isinstance(steps, int | np.integer):
        steps = slice(int(steps), int(steps) + 1)
    if isinstance(steps, tuple):
        steps = slice(*steps)
    start = steps.start or 0
    wanted = (numbers >= start) & ((numbers - start) % (steps.step or 1) == 0)
    if steps.stop is not None:
        wanted &= numbers < steps.stop
    chosen: IntArray = numbers[wanted]
    return chosen


def _compare_normalization(
    a: Run, b: Run, steps: IntArray, threshold: float
) -> pd.DataFrame:
    table = "normalization"
    names = [[layer["name"] for layer in run.manifest[table]] for run in (a, b)]
    shared = [name for name in names[0] if name in names[1]]
    metrics = TABLES[table].names("measured")
    found = Comparison(table, metrics, Pairing(*names), threshold)
    if shared:
        extents = [run.extents(table) for run in (a, b)]
        _go_over((a, b), extents, steps, found)
    return found.layers(shared)


def _go_over(
    runs: tuple[Run, Run],
    extents: Sequence[Sequence[Extent]],
    steps: IntArray,
    found: Comparison,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Compare all rows of some steps."""
    halves = [
        Half(run, found.table, found.columns, names, its)
        for run, names, its in zip(runs, found.pairing.names, extents, strict=True)
    ]
    each = stretches(
        halves[0], halves[1], steps, lambda: found.later().take, found.pairing.reach
    )
    for later in each:
        found.merge(later)
        if progress is not None:
            progress(found.steps / len(steps))
    for run, problems in zip(runs, found.problems, strict=True):
        run.warn_of(list(problems))


def _side(run: Run) -> Side:
    manifest = run.manifest
    return Side(
        run=run,
        name=run.name,
        status=run.status,
        model=manifest["model"]["name"],
        optimizer=manifest["optimizer"]["name"],
    )
