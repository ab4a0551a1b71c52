"""Runs of made-up rows in made-up files, and what a slow comparison says of them."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from dynoscope.diff.difference import distance, kind_of, limit_of, relative
from dynoscope.reader.files import list_files, read_table
from dynoscope.recorder.journal import TableWriter
from dynoscope.recorder.tables import arrays
from dynoscope.schema import TABLES
from dynoscope.sealing import segment

Curve: TypeAlias = Mapping[int, float]

COMPARED = TABLES["layers"].names("measured", "setting", "predicted")
LAYERS = ("b.weight", "a.bias", "a.weight", "b.c.weight", "d")

SQUARED = ("weight_norm", "grad_l2", "momentum_norm")
"""Norms of modules: squares add, what is not there for want of a gradient does not."""
ADDED = ("grad_l1", "nonfinite", "kkt_gap")
PREDICTED = ("pred_weight_norm", "pred_update_rms", "traj_weight_norm")
ROLLED = (*SQUARED, *ADDED, *PREDICTED, "weight_max", "lr")


def make_rows(
    layers: Sequence[str], steps: Sequence[int], random: np.random.Generator
) -> pd.DataFrame:
    """Rows of some layers and steps; layers may be missing at some steps."""
    rows = pd.DataFrame(
        [(step, layer) for step in steps for layer in layers],
        columns=["step", "layer"],
    )
    kind = random.integers(3)
    if kind == 1:  # optimizers that take turns
        turns = {layer: random.integers(1, 4) for layer in layers}
        rows = rows[rows["step"] % rows["layer"].map(turns) == 0]
    elif kind == 2:
        rows = rows[random.random(len(rows)) < 0.8]
    rows = rows.reset_index(drop=True)
    count = len(rows)
    for column in TABLES["layers"].columns:
        if column.name in ("step", "layer"):
            continue
        values: Any = np.exp(random.normal(size=count))
        if column.name == "nonfinite":
            values = random.choice([0.0, 0.0, 0.0, 3.0], count)
        elif column.name == "numel":
            values = rows["layer"].map({n: 4.0 + i for i, n in enumerate(LAYERS)})
        elif (kind := random.integers(6)) == 0:
            values = np.full(count, random.choice([0.0, 1.0, np.nan]))
        elif kind == 1:
            odd = random.choice([np.nan, 0.0, np.inf, -1.0], count)
            values = np.where(random.random(count) < 0.2, odd, values)
        elif kind == 2:
            values = random.normal(size=count)
        if column.name.startswith(("weight_", "update_")):  # every row has them
            values = np.where(np.isnan(values), 1.0, values)
        if column.name in ("weight_norm", "weight_max", "update_norm"):
            values = np.abs(values)
        rows[column.name] = np.asarray(values, column.dtype)
    return rows


def write_rows(
    run: Path, rows: pd.DataFrame, cuts: Sequence[int], sealed: Sequence[range]
) -> None:
    """Write rows, a part up to each cut, the rest a journal; seal some of the parts."""
    writer = TableWriter(run, "layers")
    for start, stop in itertools.pairwise(sorted({0, *cuts, len(rows)})):
        some = rows[start:stop]
        columns: dict[str, Any] = {str(n): some[n].to_numpy() for n in rows}
        columns["layer"] = some["layer"].tolist()
        writer.append(arrays("layers", columns))
        if stop in cuts:
            writer.flush()
    writer.abandon()
    files = list_files(run, "layers")
    for chosen in sealed:
        if some_files := files[chosen.start : min(chosen.stop, len(files) - 1)]:
            segment.write_segment(run / "layers", some_files)


def write_manifest(run: Path, layers: Sequence[str]) -> None:
    """A manifest with what a comparison looks at."""
    described = [
        {"name": name, "shape": [2, 2], "dtype": "float32", "group": 0, "numel": 4}
        for name in layers
    ]
    manifest: dict[str, Any] = {
        "schema_version": 2,
        "status": "finished",
        "problems": [],
        "config": {},
        "model": {"name": "Net"},
        "optimizer": {"name": "SGD", "hyperparameters": []},
        "versions": {},
        "layers": described,
        "normalization": [],
    }
    (run / "run.json").write_text(json.dumps(manifest), encoding="utf-8")


def rows_of(run: Path) -> pd.DataFrame:
    """All rows of a run; of two for one step and layer the one written last."""
    rows = read_table(run, "layers")[0].to_pandas()
    frame: pd.DataFrame = rows.drop_duplicates(["step", "layer"], keep="last")
    return frame


def curves_of(rows: pd.DataFrame, name: str) -> dict[str, dict[int, float]]:
    """A layer's curves, or a module's, which are rolled up a step at a time."""
    if name in LAYERS:
        rows = rows[rows["layer"] == name]
    else:
        rows = rows[rows["layer"].str.startswith(name.removesuffix("*"))]
    steps = [int(step) for step in rows["step"]]
    if rows["layer"].nunique() < 2:
        return {
            metric: dict(zip(steps, rows[metric].astype(float), strict=True))
            for metric in COMPARED
        }
    by_step = [(int(str(step)), some) for step, some in rows.groupby("step")]
    return {
        metric: {step: _rolled(some, metric) for step, some in by_step}
        for metric in ROLLED
    }


def _rolled(rows: pd.DataFrame, metric: str) -> float:
    values = rows[metric].to_numpy(float)
    if metric == "lr":
        return float(values[0]) if (values == values[0]).all() else math.nan
    if metric in PREDICTED:
        return float(np.sqrt((values**2).sum()))
    values = values[~(np.isnan(values) & (rows["nonfinite"].to_numpy() == 0))]
    if not len(values):
        return math.nan
    if metric == "weight_max":
        return float(values.max())
    if metric in SQUARED:
        return float(np.sqrt((values**2).sum()))
    return float(values.sum())


def compare(a: Curve, b: Curve, steps: Sequence[int], metric: str) -> dict[str, Any]:
    """Two curves, a number at a time."""
    kind = kind_of(TABLES["layers"][metric])
    limit = limit_of(kind, 0.1)
    found: dict[str, Any] = {"steps": 0, "only_a": 0, "only_b": 0}
    alone: tuple[list[float], list[float]] = [], []
    both: tuple[list[float], list[float]] = [], []
    farthest, found["largest"] = 0.0, 0.0
    pairs = np.array([[its.get(step, math.nan) for step in steps] for its in (a, b)])
    finite = np.where(np.isfinite(pairs), pairs, math.nan)
    distances = distance(kind, *finite).tolist()
    changes = relative(kind, *finite).tolist()
    found["largest_step"] = found["first_step"] = None
    for step, x, y, apart, change in zip(
        steps, *pairs.tolist(), distances, changes, strict=True
    ):
        for value, its in zip((x, y), alone, strict=True):
            if math.isfinite(value):
                its.append(value)
        if not (math.isfinite(x) and math.isfinite(y)):
            found["only_a"] += math.isfinite(x)
            found["only_b"] += math.isfinite(y)
            continue
        both[0].append(x)
        both[1].append(y)
        if apart > farthest:
            farthest = apart
            found["largest"], found["largest_step"] = change, step
        if apart > limit and found["first_step"] is None:
            found["first_step"] = step
    found["steps"], found["farthest"] = len(both[0]), farthest
    if not both[0]:
        found["largest"] = math.nan
    for side, its, others in zip("ab", both, alone, strict=True):
        chosen = its or others
        found[side] = math.fsum(chosen) / len(chosen) if chosen else math.nan
    return found
