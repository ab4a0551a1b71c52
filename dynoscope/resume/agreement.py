"""Whether a training is the one that a run has recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynoscope.errors import RunExistsError
from dynoscope.measurement import Subject

__all__ = ["check_model", "is_same_optimizer"]

NAMED = 5
"""Layers that an error names."""


def check_model(run: Path | str, manifest: Mapping[str, Any], subject: Subject) -> None:
    """Refuse to go on with another model.

    Layers that the run has had for a while only, because parameters were added on the
    way, may be missing.

    Raises:
        RunExistsError: names the layers that differ.
    """
    before = {entry["name"]: tuple(entry["shape"]) for entry in manifest["layers"]}
    now = {layer.name: layer.shape for layer in subject.layers}
    missing = [] if manifest.get("changes") else [n for n in before if n not in now]
    reshaped = [
        f"{name} {shape}, was {before[name]}"
        for name, shape in now.items()
        if before.get(name, shape) != shape
    ]
    turns = {entry["name"]: entry.get("turn", 0) for entry in manifest["layers"]}
    dealt = [la.name for la in subject.layers if turns.get(la.name, 0) != la.turn]
    differences = {
        "missing": missing,
        "new": [name for name in now if name not in before],
        "of another shape": reshaped,
        # layers that came later were dealt out among those of before
        "measured at other turns": [] if manifest.get("changes") else dealt,
    }
    said = [f"{what}: {_listed(names)}" for what, names in differences.items() if names]
    if said:
        raise RunExistsError(
            f"{run} was recorded of a {manifest['model']['name']} with other layers, "
            f"so this {subject.model} cannot resume it ({'; '.join(said)}). Pass the "
            "include=, exclude= and turns= it was watched with, or another run="
        )


def is_same_optimizer(manifest: Mapping[str, Any], subject: Subject) -> bool:
    """Whether the optimizers and their groups are those of before."""
    layers = {layer.name: layer.group for layer in subject.layers}
    before = {entry["name"]: entry["group"] for entry in manifest["layers"]}
    optimizer = manifest["optimizer"]
    return (
        optimizer["name"] == subject.optimizer.name
        and optimizer["kinds"] == list(subject.optimizer.kinds)
        and layers == {name: before[name] for name in layers}
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
