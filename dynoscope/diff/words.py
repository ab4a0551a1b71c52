"""A comparison in a few sentences."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dynoscope.diff.phrases import change, number, rows_of, setting

if TYPE_CHECKING:
    from dynoscope.diff.result import Diff

__all__ = ["summarize", "verdict"]


def summarize(diff: "Diff") -> str:
    """What was compared, what differs in settings, layers and rotation."""
    return f"{_compared(diff)} {_settings(diff)} {verdict(diff)}"


def verdict(diff: "Diff") -> str:
    """How differently the two runs moved their weights."""
    if _is_same(diff):
        return "Every metric of every common layer is equal at every common step."
    sentences = _most_different(diff), _first(diff), *_nonfinite(diff), _rotation(diff)
    return " ".join(sentences)


def _compared(diff: "Diff") -> str:
    steps, a, b = diff.steps, diff.a, diff.b
    which = (
        f"step {steps.first}"
        if len(steps) == 1
        else f"{len(steps)} steps from {steps.first} to {steps.last}"
    )
    alone = [
        f"{_layers(len(only))} in {side.name} only"
        for side, only in ((a, diff.only_a), (b, diff.only_b))
        if only
    ]
    common = diff.layers["layer"].nunique()
    text = (
        f"{a.name} ({a.optimizer}, {a.status}) against {b.name} ({b.optimizer}, "
        f"{b.status}): {_layers(common)} in common, {which}"
    )
    return f"{text}; {'; '.join(alone)}." if alone else f"{text}."


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _settings(diff: "Diff") -> str:
    if diff.config.empty:
        return f"All {diff.config_equal} settings are equal."
    shown = [
        f"{row.key} {setting(row.a)} → {setting(row.b)}"
        for row in rows_of(diff.config.head(3))
    ]
    more = len(diff.config) - len(shown)
    rest = f" and {more} more" if more else ""
    return f"Settings differ in {', '.join(shown)}{rest}."


def _is_same(diff: "Diff") -> bool:
    layers = diff.layers
    alone = (layers["only_a"] > 0) | (layers["only_b"] > 0)
    return not alone.any() and bool(layers["largest_step"].isna().all())


def _most_different(diff: "Diff") -> str:
    top = diff.most_different(3)
    if top.empty:
        return "No metric has a finite value in both runs at a common step."
    names = ", ".join(top["layer"])
    return f"{names} differ{'s' * (len(top) == 1)} most."


def _first(diff: "Diff") -> str:
    percent = f"{100 * diff.threshold:g} %"
    rows = diff.first_to_differ()
    if rows.empty:
        return f"No layer's weight norm ever differs by more than {percent}."
    step = int(rows["first_step"][0])
    names = rows.loc[rows["first_step"] == step, "layer"].tolist()
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f"The first weight norm to differ by more than {percent} is that of "
        f"{names[0]}{others}, at step {step}."
    )


def _nonfinite(diff: "Diff") -> Iterator[str]:
    for side, name in (("a", diff.a.name), ("b", diff.b.name)):
        steps = diff.curves.loc[diff.curves[f"nonfinite_{side}"] > 0, "step"]
        if len(steps):
            yield (
                f"{name} has NaN or infinite entries at {len(steps)} of the common "
                f"steps, first at step {steps.iloc[0]}."
            )


def _rotation(diff: "Diff") -> str:
    angle: Any = diff.whole.loc["angular_update"]
    predicted: Any = diff.whole.loc["pred_angular_update"]
    said = []
    for side, name in (("a", diff.a.name), ("b", diff.b.name)):
        expected = predicted[side]
        beside = "" if math.isnan(expected) else f" ({number(expected)} predicted)"
        said.append(f"{number(angle[side])} rad per step in {name}{beside}")
    text = f"The whole model turns by {said[0]} and {said[1]}"
    how_much = change("ratio", angle["relative"])
    return f"{text}: {how_much}." if angle["steps"] else f"{text}."
