"""A prediction for the terminal."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from dynoscope.calculator.prediction import Prediction

__all__ = ["print_prediction"]

SHOWN: Final = 9
"""Steps of the trajectory that are printed."""


def print_prediction(
    prediction: Prediction,
    other: Prediction | None = None,
    *,
    console: Console | None = None,
) -> None:
    """Print a prediction, and one to use instead beside it."""
    console = console or Console()
    both = [prediction] if other is None else [prediction, other]
    console.print(_equilibria(both))
    for each in both:
        console.print()
        console.print(_trajectory(each))
    half_life = float(prediction.equilibrium.half_life)
    steps = prediction.settings["steps"]
    if np.isinf(half_life):
        console.print(
            "\nWithout lr and weight decay there is no equilibrium: the norm grows for "
            "ever, and the rotation dies out."
        )
    elif half_life > steps:
        console.print(
            f"\nThe norm closes half of its distance to equilibrium in {half_life:.0f} "
            f"steps, more than the {steps} of this training: it will not settle. Raise "
            "lr or weight decay to settle sooner."
        )
    console.print(
        "\nFor weights whose scale the loss does not feel, as those before a "
        "normalization.",
        style="dim",
    )


def _equilibria(predictions: list[Prediction]) -> Table:
    shape = " x ".join(map(str, predictions[0].shape))
    table = Table(title=f"Equilibrium of {shape} weights")
    table.add_column("")
    for each in predictions:
        table.add_column(each.optimizer, justify="right")
    rows: dict[str, Callable[[Prediction], Any]] = {
        "lr": lambda p: p.settings["lr"],
        "weight decay": lambda p: p.settings["weight_decay"],
        "weight norm": lambda p: p.equilibrium.weight_norm,
        "angular update (rad)": lambda p: p.equilibrium.angular_update,
        "RMS update": lambda p: p.equilibrium.update_rms,
        "half-life (steps)": lambda p: p.equilibrium.half_life,
    }
    for name, value in rows.items():
        table.add_row(name, *(_number(float(value(each))) for each in predictions))
    return table


def _trajectory(prediction: Prediction) -> Table:
    settings, rows = prediction.settings, prediction.trajectory
    table = Table(
        title=f"{prediction.optimizer}, {settings['schedule']} after "
        f"{settings['warmup']} steps of warmup, from a norm of "
        f"{settings['start_weight_norm']:.3g}"
    )
    for name in ("step", "lr", "weight norm", "(equil.)", "angle (rad)", "(equil.)"):
        table.add_column(name, justify="right")
    last = len(rows) - 1
    shown = np.unique(np.linspace(0, last, min(SHOWN, len(rows))).round().astype(int))
    columns = ["lr", "weight_norm", "pred_weight_norm"]
    columns += ["angular_update", "pred_angular_update"]
    for index in shown:
        row = rows.iloc[index]
        table.add_row(str(index), *(_number(float(row[name])) for name in columns))
    return table


def _number(value: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.4g}"
