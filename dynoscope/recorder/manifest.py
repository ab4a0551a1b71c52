"""run.json: what a run is, how it stands, and what went wrong in it."""

import dataclasses
import json
import math
import platform
import subprocess
import time
from argparse import Namespace
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dynoscope.measurement import Subject
from dynoscope.schema.folder import MANIFEST, SCHEMA_VERSION, TEMPORARY
from dynoscope.schema.process import Writer

__all__ = ["Manifest", "plain"]


class Manifest:
    """The manifest of a run that is being written.

    Every change replaces the file in one go, so a reader never sees half of one.
    """

    def __init__(self, run: Path, content: dict[str, Any]) -> None:
        self._path = run / MANIFEST
        self.content = content

    @classmethod
    def create(
        cls, run: Path, subject: Subject, settings: dict[str, Any]
    ) -> "Manifest":
        """A manifest for a new run; `write` puts it on disk."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "name": run.name,
            "status": "running",
            "exception": None,
            "created": time.time(),
            "revision": 0,  # grows when what was read before is stale
            "ended": None,
            "progress": {
                "step": None,
                "measured": 0,
                "skipped": 0,
                "lost": 0,
                "overflowed": 0,  # steps that a gradient scaler has called off
            },
            "problems": [],
            **_described(subject),
            **plain(settings),
            "versions": _versions(),
            "git": _git(),
        }
        manifest = cls(run, content)
        manifest.beat()
        return manifest

    def change(self, subject: Subject) -> None:
        """Other layers are watched from now on; those of before stay listed."""
        now = _described(subject)
        for table in ("layers", "normalization"):
            names = {entry["name"] for entry in now[table]}
            gone = [old for old in self.content[table] if old["name"] not in names]
            if table == "normalization":
                gone = []  # it points into the layers, whose places have changed
            now[table] += gone
        self.content.update(now)
        self.content["revision"] += 1

    def beat(self) -> None:
        """Say that the writer is alive, and who it is."""
        self.content["writer"] = plain(Writer.current())
        self.content["heartbeat"] = time.time()

    def write(self) -> None:
        """Replace the file."""
        temporary = self._path.with_name(self._path.name + TEMPORARY)
        temporary.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        temporary.replace(self._path)


def _described(subject: Subject) -> dict[str, Any]:
    return {
        "model": {
            "name": subject.model,
            "parameters": sum(layer.numel for layer in subject.layers),
        },
        "optimizer": plain(subject.optimizer),
        "optimizers": plain(subject.optimizers),
        "layers": [{**plain(layer), "numel": layer.numel} for layer in subject.layers],
        "normalization": plain(subject.normalization),
        "unwatched": dict(subject.unwatched),
    }


def plain(value: Any) -> Any:
    """The nearest thing that JSON can hold; a representation where nothing is."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Namespace):
        return plain(vars(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return str(value)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("dynoscope", "torch", "numpy", "pyarrow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git() -> dict[str, Any] | None:
    """Commit of the working directory, and whether tracked files differ."""
    commit = _git_says("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git_says("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git_says(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository, or a very slow one: not our business
    return done.stdout.strip()
