"""What a comparison of two runs found."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dynoscope.diff.difference import CAP
from dynoscope.diff.words import summarize
from dynoscope.reader import Run

__all__ = ["CommonSteps", "Diff", "Side"]

OWN = "dynoscope/"  # how scalars begin that dynoscope logs of its own cost


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two runs, as it was when they were compared.

    Attributes:
        run: the run itself.
        name: name of its folder.
        status: `running`, `finished`, `failed` or `lost`.
        model: class name of the model.
        optimizer: class name of the optimizer.
    """

    run: Run
    name: str
    status: str
    model: str
    optimizer: str

    @property
    def path(self) -> Path | str:
        """The run's folder, or its URI."""
        return self.run.path


@dataclasses.dataclass(frozen=True, eq=False)
class CommonSteps:
    """The steps over which two runs are compared.

    Attributes:
        numbers: step numbers, shape (count,), rising.
        of_a: number of steps that run a measured.
        of_b: number of steps that run b measured.
    """

    numbers: npt.NDArray[np.int64]
    of_a: int
    of_b: int

    def __len__(self) -> int:
        """Number of common steps, at least 1."""
        return len(self.numbers)

    @property
    def first(self) -> int:
        """First common step."""
        return int(self.numbers[0])

    @property
    def last(self) -> int:
        """Last common step."""
        return int(self.numbers[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class Diff:
    """Two runs compared; get one from `dynoscope.diff.diff`.

    `layers`, `roll_ups` and `normalization` have one row per layer and metric:

    - `layer`, `metric`, `role` (measured, predicted or setting);
    - `kind`: `ratio` for positive quantities, `difference` for cosines, shares
      and counts;
    - `a`, `b`: means over the common steps at which both runs have a finite
      number; where there is none, each run's mean over those where it has one;
    - `relative`: b / a - 1 (`ratio`), b - a (`difference`); positive where b is
      larger, 0 where both are zero, inf where only a is, NaN where a or b is;
    - `distance`: abs(ln(b / a)) or abs(b - a): the same whichever run is a;
    - `largest`, `largest_step`: the `relative` at the single step where the
      distance is largest, and that step (NA if they never differ);
    - `first_step`: the first step at which they differ by more than `threshold`
      (ratio: the larger is over 1 + threshold times the smaller), or NA;
    - `steps`, `only_a`, `only_b`: number of common steps at which both, or only
      one of them, has a finite number.

    Attributes:
        a: the run held against.
        b: the other one.
        steps: the steps compared.
        threshold: see `first_step` above.
        config: settings that differ: `key`, `a`, `b`.
        config_equal: number of settings that do not.
        layers: comparison of parameter tensors that both runs have.
        roll_ups: comparison of modules (`features.*`) and whole models (`*`),
            each of all the layers that its run has there.
        curves: the whole models' metrics at each common step: `step`, then
            `<metric>_a` and `<metric>_b`.
        normalization: comparison of normalization layers' channel counts.
        scalars: what both logged: `name`, then `_last`, `_min` and `_mean` of a
            and b, `relative` ((b_mean - a_mean) / abs(a_mean)), and `steps`.
        only_a: layers of run a alone.
        only_b: layers of run b alone.
    """

    a: Side
    b: Side
    steps: CommonSteps
    threshold: float
    config: pd.DataFrame
    config_equal: int
    layers: pd.DataFrame
    roll_ups: pd.DataFrame
    curves: pd.DataFrame
    normalization: pd.DataFrame
    scalars: pd.DataFrame
    only_a: list[str]
    only_b: list[str]

    def __repr__(self) -> str:
        """The two runs, and over how many steps."""
        return (
            f"<dynoscope diff of {str(self.a.path)!r} and {str(self.b.path)!r}: "
            f"{len(self.steps)} common steps>"
        )

    @property
    def summary(self) -> str:
        """What differs, in a few sentences."""
        return summarize(self)

    @property
    def whole(self) -> pd.DataFrame:
        """Rows of `roll_ups` for the whole model, by metric."""
        rows = self.roll_ups[self.roll_ups["layer"] == "*"]
        return rows.set_index("metric")

    @property
    def logged(self) -> pd.DataFrame:
        """Rows of `scalars` that the user logged, not dynoscope of itself."""
        own = self.scalars["name"].astype(str).str.startswith(OWN)
        return self.scalars[~own].reset_index(drop=True)

    def most_different(self, n: int | None = 10) -> pd.DataFrame:
        """Layers that differ most, and where they do.

        A layer's `score` is the mean, over its measured metrics, of `distance`,
        each capped at 5 (`dynoscope.diff.difference.CAP`). Settings and
        predictions do not count: they repeat the configuration. Equal scores
        stay in the model's order.

        Args:
            n: how many at most; None for all.

        Returns:
            One row per layer, by falling score: `layer`, `score`, and of its
            metric with the largest distance `metric`, `kind`, `a`, `b`,
            `relative` and `first_step`. Layers with no comparable metric are
            left out.
        """
        rows = self.layers
        rows = rows[(rows["role"] == "measured") & rows["distance"].notna()]
        rows = rows.assign(capped=rows["distance"].clip(upper=CAP))
        by_layer = rows.groupby("layer", sort=False)["capped"]
        scores = by_layer.mean().sort_values(ascending=False, kind="stable")
        top = rows.loc[by_layer.idxmax()].set_index("layer")
        top["score"] = scores
        columns = ["score", "metric", "kind", "a", "b", "relative", "first_step"]
        return top.loc[scores.index[:n], columns].reset_index()

    def first_to_differ(self, metric: str = "weight_norm") -> pd.DataFrame:
        """Layers in the order in which a metric first differed.

        Args:
            metric: a metric of layers. The weight norm is the one to ask for:
                metrics of single gradients are noise from the first step on.

        Returns:
            Rows of `layers` for that metric whose `first_step` is not NA.
        """
        rows = self.layers[self.layers["metric"] == metric]
        rows = rows[rows["first_step"].notna()]
        return rows.sort_values("first_step", kind="stable", ignore_index=True)

    def to_json(self, indent: int | None = 1) -> str:
        """All of it as strict JSON; what is NaN, infinite or NA is null.

        An infinite `relative` or `distance` can be told by its zero `a` or `b`.
        """
        content = {
            "a": _side(self.a),
            "b": _side(self.b),
            "steps": {
                "common": len(self.steps),
                "first": self.steps.first,
                "last": self.steps.last,
                "of_a": self.steps.of_a,
                "of_b": self.steps.of_b,
            },
            "threshold": self.threshold,
            "summary": self.summary,
            "config": _records(self.config),
            "config_equal": self.config_equal,
            "most_different": _records(self.most_different(None)),
            "layers": _records(self.layers),
            "roll_ups": _records(self.roll_ups),
            "normalization": _records(self.normalization),
            "scalars": _records(self.scalars),
            "only_a": self.only_a,
            "only_b": self.only_b,
        }
        return json.dumps(content, indent=indent, allow_nan=False)


def _side(side: Side) -> dict[str, str]:
    return {
        "name": side.name,
        "path": str(side.path),
        "status": side.status,
        "model": side.model,
        "optimizer": side.optimizer,
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = {
        str(name): [_strict(value) for value in frame[name].tolist()] for name in frame
    }
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _strict(value: Any) -> Any:
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
