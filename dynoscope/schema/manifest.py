"""A manifest as the text of a file."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["manifest_text"]


def manifest_text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each entry, and for each layer.

    `json.dumps` with an indent, which is Python throughout, would be most of what the
    writer's thread does between two batches.
    """
    entries = (f" {json.dumps(k)}: {_in_lines(v)}" for k, v in content.items())
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _in_lines(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
    return json.dumps(value)
