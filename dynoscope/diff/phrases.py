"""Numbers and names as people read them; for the terminal, the page, the summary."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from dynoscope.diff.difference import Kind
from dynoscope.schema import TABLES

__all__ = [
    "change",
    "label_of",
    "number",
    "rows_of",
    "setting",
    "shorten",
    "step",
    "unit_of",
]

NOTHING = "-"


def number(value: float) -> str:
    """Three significant digits.

    >>> [number(x) for x in (0.0, 13.3626, 0.00082, 1.2e-9, 24058.0, float("nan"))]
    ['0', '13.4', '0.00082', '1.2e-09', '24100', '-']
    """
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = f"{value:.3g}"
    if "e+" in text and abs(value) < 1e6:
        return f"{float(text):.0f}"
    return text


def change(kind: Kind, relative: float) -> str:
    """A `relative` of `dynoscope.diff.difference`, in few characters.

    Ratios from a half to twice are a percentage, others the factor b / a.

    >>> [change("ratio", x) for x in (0.0, 0.123, -0.4, 3.0, -0.8, -1.0)]
    ['0 %', '+12.3 %', '-40.0 %', '4x', '0.2x', 'to 0']
    >>> [change("difference", x) for x in (0.0, 0.25, -0.031)]
    ['0', '+0.25', '-0.031']
    """
    if math.isnan(relative):
        return NOTHING
    if kind == "difference":
        return f"{relative:+.3g}" if relative else "0"
    if relative == 0:
        return "0 %"
    if math.isinf(relative):
        return "from 0"
    if relative <= -1:
        return "to 0"
    if relative >= 1 or relative < -0.5:
        return f"{number(relative + 1)}x"
    percent = 100 * relative
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else f"{percent:+.1g} %"


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """Its rows, with the columns as attributes."""
    return iter(frame.itertuples(index=False))


def step(value: Any) -> str:
    """A step number, or a dash where there is none."""
    return NOTHING if value is pd.NA or value is None else str(int(value))


def setting(value: Any) -> str:
    """A value of a configuration, as JSON has it, without quotes around text."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    return json.dumps(value)


def label_of(metric: str, table: str = "layers") -> str:
    """The metric's label in the registry."""
    return TABLES[table][metric].label


def unit_of(metric: str, table: str = "layers") -> str:
    """The metric's unit in the registry."""
    return TABLES[table][metric].unit


def shorten(name: str, width: int) -> str:
    """A name cut on the left: a layer's end tells more than its beginning.

    >>> shorten("transformer.h.11.mlp.weight", 16)
    '…h.11.mlp.weight'
    """
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]
