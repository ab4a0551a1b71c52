"""`diff`: two runs to what differs between them."""

import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.blocks import Columns, blocks, measured_steps
from dynoscope.diff.configuration import compare_configuration
from dynoscope.diff.result import CommonSteps, Diff, Side
from dynoscope.diff.scalars import compare_scalars
from dynoscope.diff.tally import Tally
from dynoscope.errors import UncomparableError
from dynoscope.reader import Run, open_run
from dynoscope.reader.rollup import members_of, roll_up_columns
from dynoscope.schema import TABLES

__all__ = ["diff"]

RunLike: TypeAlias = Run | str | os.PathLike[str]
Steps: TypeAlias = int | slice | range | tuple[int, int] | None
IntArray: TypeAlias = npt.NDArray[np.int64]

COMPARED = TABLES["layers"].names("measured", "setting", "predicted")


def diff(
    a: RunLike, b: RunLike, *, steps: Steps = None, threshold: float = 0.1
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

    Raises:
        RunNotFoundError: there is no readable run; the message says why.
        UncomparableError: no layer, or no measured step, in common.
    """
    run_a, run_b = (r if isinstance(r, Run) else open_run(r) for r in (a, b))
    shared = _shared_layers(run_a, run_b)
    common = _common_steps(run_a, run_b, steps)
    layers, roll_ups, curves = _compare_layers(
        run_a, run_b, shared, common.numbers, threshold
    )
    config, config_equal = compare_configuration(run_a.manifest, run_b.manifest)
    return Diff(
        a=_side(run_a),
        b=_side(run_b),
        steps=common,
        threshold=threshold,
        config=config,
        config_equal=config_equal,
        layers=layers,
        roll_ups=roll_ups,
        curves=curves,
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


def _common_steps(a: Run, b: Run, steps: Steps) -> CommonSteps:
    in_a, in_b = (measured_steps(run) for run in (a, b))
    common = _chosen(np.intersect1d(in_a, in_b, assume_unique=True), steps)
    if not len(common):
        within = "" if steps is None else f" within steps={steps}"
        raise UncomparableError(
            f"no measured step in common{within}: {a.path} has {_extent(in_a)}; "
            f"{b.path} has {_extent(in_b)}. Record both with an every= of which one "
            "divides the other, or wait until both have come as far"
        )
    return CommonSteps(common, of_a=len(in_a), of_b=len(in_b))


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


def _compare_layers(
    a: Run, b: Run, shared: list[str], steps: IntArray, threshold: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Frames of layers and roll-ups, and the whole model's curves."""
    names_a, names_b = a.layer_names, b.layer_names
    modules = [name for name in a.roll_ups if name in set(b.roll_ups)]
    of_layers = _tallies(COMPARED, len(shared), threshold)
    of_modules = _tallies(COMPARED, len(modules), threshold)
    curves: list[pd.DataFrame] = []
    for block in blocks("layers", (a, names_a), (b, names_b), steps):
        in_a, in_b = _places(shared, names_a), _places(shared, names_b)
        rolled_a = _rolled(block.a, modules, names_a)
        rolled_b = _rolled(block.b, modules, names_b)
        for metric in COMPARED:
            values_a, values_b = block.a[metric][:, in_a], block.b[metric][:, in_b]
            of_layers[metric].add(block.steps, values_a, values_b)
            of_modules[metric].add(block.steps, rolled_a[metric], rolled_b[metric])
        curves.append(_curves(block.steps, rolled_a, rolled_b))
    return (
        _interleaved(of_layers, shared),
        _interleaved(of_modules, modules),
        pd.concat(curves, ignore_index=True),
    )


def _compare_normalization(
    a: Run, b: Run, steps: IntArray, threshold: float
) -> pd.DataFrame:
    found_a, found_b = (
        [layer["name"] for layer in run.manifest["normalization"]] for run in (a, b)
    )
    shared = [name for name in found_a if name in found_b]
    counts = TABLES["normalization"].names("measured")
    tallies = _tallies(counts, len(shared), threshold, "normalization")
    if shared:
        sides = (a, shared), (b, shared)
        for block in blocks("normalization", *sides, steps):
            for metric in counts:
                tallies[metric].add(block.steps, block.a[metric], block.b[metric])
    return _interleaved(tallies, shared)


def _tallies(
    metrics: Sequence[str], layers: int, threshold: float, table: str = "layers"
) -> dict[str, Tally]:
    return {name: Tally(TABLES[table][name], layers, threshold) for name in metrics}


def _places(names: Sequence[str], among: Sequence[str]) -> list[int]:
    position = {name: i for i, name in enumerate(among)}
    return [position[name] for name in names]


def _rolled(columns: Columns, modules: Sequence[str], names: Sequence[str]) -> Columns:
    """Columns of roll-ups, shape (steps, modules)."""
    per_module = []
    for module in modules:
        places = _places(members_of(module, names), names)
        members = {name: values[:, places] for name, values in columns.items()}
        per_module.append(roll_up_columns(members))
    return {
        name: np.stack([module[name] for module in per_module], axis=1)
        for name in COMPARED
    }


def _curves(steps: IntArray, a: Columns, b: Columns) -> pd.DataFrame:
    """The whole model's metrics, which are the first of the roll-ups."""
    columns: dict[str, npt.NDArray[np.generic]] = {"step": steps}
    for name in COMPARED:
        columns[f"{name}_a"], columns[f"{name}_b"] = a[name][:, 0], b[name][:, 0]
    return pd.DataFrame(columns)


def _interleaved(tallies: Mapping[str, Tally], layers: list[str]) -> pd.DataFrame:
    """All metrics of the first layer, then of the second, and so on."""
    frame = pd.concat(
        [tally.frame(layers) for tally in tallies.values()], ignore_index=True
    )
    metric, layer = np.divmod(np.arange(len(frame)), max(len(layers), 1))
    return frame.take(np.lexsort((metric, layer))).reset_index(drop=True)


def _side(run: Run) -> Side:
    manifest = run.manifest
    return Side(
        run=run,
        name=run.name,
        status=run.status,
        model=manifest["model"]["name"],
        optimizer=manifest["optimizer"]["name"],
    )
