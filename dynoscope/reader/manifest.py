"""Read run.json."""

import json
from pathlib import Path
from typing import Any

from dynoscope.errors import RunNotFoundError
from dynoscope.schema import SCHEMA_VERSION
from dynoscope.schema.folder import MANIFEST

__all__ = ["read_manifest"]


def read_manifest(path: Path, shown: object = None) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        path: the folder that it is in.
        shown: what to call that folder, if not by its path.

    Raises:
        RunNotFoundError: there is none that can be read; the message says why.
    """
    name = path if shown is None else shown
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except OSError as error:
        what = "does not exist" if not path.exists() else f"has no readable {MANIFEST}"
        raise RunNotFoundError(
            f"{name} {what} ({type(error).__name__}): "
            "pass the folder or the URI that dynoscope.watch(run=...) wrote"
        ) from None
    try:
        manifest = json.loads(text)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise RunNotFoundError(
            f"{MANIFEST} of {name} is not a dynoscope manifest"
        ) from None
    if version > SCHEMA_VERSION:
        raise RunNotFoundError(
            f"{name} was written by a newer dynoscope (schema {version}, this one "
            f"reads up to {SCHEMA_VERSION}): pip install --upgrade dynoscope"
        )
    content: dict[str, Any] = manifest
    return content
