"""`dynoscope predict`: from what was typed to what is printed."""

from collections.abc import Callable, Mapping
from typing import Any

from dynoscope.calculator.prediction import Prediction, predict
from dynoscope.calculator.text import print_prediction
from dynoscope.errors import TheoryError

__all__ = ["numbers", "run"]


def numbers(
    name: str, text: str | None, kind: Callable[[str], float] = float
) -> tuple[Any, ...] | None:
    """Numbers between commas; None for None.

    Raises:
        TheoryError: that is not what they are.
    """
    if text is None:
        return None
    try:
        return tuple(kind(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise TheoryError(
            f"--{name} takes numbers with commas between them, got {text!r}"
        ) from None


def run(
    optimizer: str,
    settings: Mapping[str, Any],
    *,
    to: str | None,
    batch_factor: float | None,
    keep: str,
    other: Mapping[str, Any],
) -> list[Prediction]:
    """Predict and print; give what was predicted, and what to use instead.

    Args:
        optimizer: as `predict` takes it.
        settings: what else it takes.
        to: the optimizer to use instead, None for the same.
        batch_factor: how many times larger the batch gets, None for as it is.
        keep: what is to stay besides the rotation.
        other: betas and momentum of the other one, None where not given.

    Raises:
        DynoscopeError: what was asked makes no sense.
    """
    prediction = predict(optimizer, **settings)
    if to is None and batch_factor is None:
        print_prediction(prediction)
        return [prediction]
    given = {name: value for name, value in other.items() if value is not None}
    instead = prediction.to(
        to,
        batch_factor=1.0 if batch_factor is None else batch_factor,
        keep=keep,  # type: ignore[arg-type]  # `convert` names what it can be
        **given,
    )
    print_prediction(prediction, instead)
    return [prediction, instead]
