"""What differs between two runs' manifests, in flat keys."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

__all__ = ["compare_configuration"]

_ABSENT = object()


def compare_configuration(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[pd.DataFrame, int]:
    """Settings that differ, and the number of those that do not.

    An optimizer's flag that the other does not have counts as off (False or
    None). Layers of one run alone are no settings: they are left out.

    Args:
        a: content of run a's `run.json`.
        b: content of run b's.

    Returns:
        Columns `key`, `a`, `b` (values as JSON has them, None where there is
        none), and how many keys are equal.
    """
    flat_a, flat_b = dict(_settings(a)), dict(_settings(b))
    shared = {layer["name"] for layer in a["layers"]} & {
        layer["name"] for layer in b["layers"]
    }
    for run in (a, b):
        flat = flat_a if run is a else flat_b
        for layer in run["layers"]:
            if layer["name"] in shared:
                for key in ("shape", "dtype", "group"):
                    flat[f"layers.{layer['name']}.{key}"] = layer[key]
    rows, equal = [], 0
    for key in dict.fromkeys([*flat_a, *flat_b]):
        value_a, value_b = flat_a.get(key, _ABSENT), flat_b.get(key, _ABSENT)
        if _same(key, value_a, value_b):
            equal += 1
        else:
            rows.append((key, _or_none(value_a), _or_none(value_b)))
    return pd.DataFrame(rows, columns=["key", "a", "b"], dtype=object), equal


def _settings(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    optimizer = manifest["optimizer"]
    yield "optimizer.name", optimizer["name"]
    for index, group in enumerate(optimizer["hyperparameters"]):
        yield from _flat(f"optimizer.groups[{index}]", group)
    yield from _flat("config", manifest["config"])
    yield from _flat("model", manifest["model"])
    yield "every", manifest.get("every")
    yield "budget", manifest.get("budget")
    yield "turns", manifest.get("turns")
    yield from _flat("unwatched", manifest.get("unwatched", {}))
    yield from _flat("git", manifest.get("git") or {})
    yield from _flat("versions", manifest["versions"])


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _flat(f"{prefix}.{key}", entry)
    else:
        yield prefix, value


def _same(key: str, a: Any, b: Any) -> bool:
    off = (None, False) if key.startswith("optimizer.") else (None,)
    if a is _ABSENT or b is _ABSENT:
        present = b if a is _ABSENT else a
        return any(present is value for value in off)
    return bool(a == b)


def _or_none(value: Any) -> Any:
    return None if value is _ABSENT else value
