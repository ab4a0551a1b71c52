"""Read run.json, and tell whether the process that writes it still lives."""

import json
import time
from pathlib import Path
from typing import Any, Final

from dynoscope.errors import RunNotFoundError
from dynoscope.schema import SCHEMA_VERSION
from dynoscope.schema.folder import MANIFEST
from dynoscope.schema.process import Writer

__all__ = ["is_gone", "read_manifest"]

SILENT_SECONDS: Final = 60.0
"""A writer on another host that was not heard of for this long is gone."""


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        RunNotFoundError: there is none that can be read; the message says why.
    """
    try:
        text = (path / MANIFEST).read_text(encoding="utf-8")
    except OSError as error:
        what = "does not exist" if not path.exists() else f"has no readable {MANIFEST}"
        raise RunNotFoundError(
            f"{path} {what} ({type(error).__name__}): "
            "pass the folder that dynoscope.watch(run=...) wrote"
        ) from None
    try:
        manifest = json.loads(text)
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError):
        raise RunNotFoundError(
            f"{path / MANIFEST} is not a dynoscope manifest"
        ) from None
    if version > SCHEMA_VERSION:
        raise RunNotFoundError(
            f"{path} was written by a newer dynoscope (schema {version}, this one "
            f"reads up to {SCHEMA_VERSION}): pip install --upgrade dynoscope"
        )
    content: dict[str, Any] = manifest
    return content


def is_gone(manifest: dict[str, Any]) -> bool:
    """Whether the writer of a run has ended without saying so."""
    gone = Writer(**manifest["writer"]).is_gone()
    if gone is None:
        return bool(time.time() - manifest["heartbeat"] > SILENT_SECONDS)
    return gone
