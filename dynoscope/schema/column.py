"""How a column and a table of a run are described."""

import dataclasses
from typing import Final, Literal

from dynoscope.errors import DynoscopeError

__all__ = ["LAYER", "STEP", "Metric", "Role", "Table", "key", "measured"]

Role = Literal["key", "measured", "predicted", "setting"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One column.

    Attributes:
        name: column name; stable for ever.
        dtype: Arrow type: `int64`, `int32`, `float64`, `float32`, `bool`,
            `string`, `list<int64>` or `list<float64>`.
        role: `key` (identifies the row), `measured`, `predicted`, or `setting`
            (a hyperparameter in force).
        unit: unit, "" where dimensionless.
        label: short title for an axis or a table head.
        description: one sentence; formula in plain text where it helps.
        source: paper and equation, "" where the definition says all.
        log: whether its axis is best drawn logarithmic.
        of: for a prediction, the measured metric that it predicts.
    """

    name: str
    dtype: str
    role: Role
    unit: str
    label: str
    description: str
    source: str = ""
    log: bool = False
    of: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of a run: a folder of Parquet files."""

    name: str
    description: str
    columns: tuple[Metric, ...]

    def __getitem__(self, column: str) -> Metric:
        """The column of that name; a DynoscopeError lists the choices."""
        for candidate in self.columns:
            if candidate.name == column:
                return candidate
        known = ", ".join(self.names())
        raise DynoscopeError(
            f"table {self.name!r} has no column {column!r}; it has: {known}"
        )

    def names(self, *roles: Role) -> list[str]:
        """Names of the columns, of these roles only where any is given."""
        return [c.name for c in self.columns if not roles or c.role in roles]


def key(name: str, dtype: str, label: str, description: str, unit: str = "") -> Metric:
    """A column that says which row this is."""
    return Metric(name, dtype, "key", unit, label, description)


def measured(
    name: str,
    unit: str,
    label: str,
    description: str,
    source: str = "",
    *,
    dtype: str = "float32",
    log: bool = False,
) -> Metric:
    """A column of measurements."""
    return Metric(name, dtype, "measured", unit, label, description, source, log)


STEP: Final = key(
    "step", "int64", "step",
    "Optimizer step from 0; the row describes the update step -> step + 1.", "steps",
)  # fmt: skip
LAYER: Final = key(
    "layer", "string", "layer", "Qualified name of the parameter, without wrappers."
)
