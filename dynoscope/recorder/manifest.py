"""run.json: what a run is, how it stands, and what went wrong in it."""

import contextlib
import dataclasses
import json
import math
import platform
import subprocess
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dynoscope.measurement import Subject
from dynoscope.recorder.past import Past
from dynoscope.schema.folder import MANIFEST, SCHEMA_VERSION, TEMPORARY
from dynoscope.schema.manifest import manifest_text
from dynoscope.schema.process import Writer

__all__ = ["Manifest", "plain"]

_IDENTITY = ("writer", "created", "resumed")
"""What tells the manifest of one watch from that of another in the same folder."""


class Manifest:
    """The manifest of a run that is being written.

    Every change replaces the file in one go, so a reader never sees half of one.
    """

    def __init__(self, run: Path, content: dict[str, Any]) -> None:
        self._path = run / MANIFEST
        self.content = content
        self._mark: tuple[int, ...] = ()

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
                "lost_rows": 0,  # of other tables than `layers`
                "counted": [],  # steps of the run, and by the optimizer's own count
                "overflowed": 0,  # steps that a gradient scaler has called off
                # what measuring has cost, and how long the run was watched
                "seconds": {"hooks": 0.0, "device": 0.0, "background": 0.0}
                | {"elapsed": 0.0},
            },
            "problems": [],
            "resumed": [],
            "changes": [],  # steps at which what is watched changed
            **_described(subject),
            **plain(settings),
            "versions": _versions(),
            "git": _git(),
        }
        manifest = cls(run, content)
        manifest.beat()
        return manifest

    def change(self, subject: Subject, step: int) -> None:
        """Other layers are watched from a step on; those of before stay listed."""
        before = self.content["layers"]
        self.content.update(_described(subject))
        self._list_gone(before)
        self.content["changes"].append(step)
        self.content["revision"] += 1

    def go_on(self, past: Past) -> None:
        """Continue the manifest of a run that is resumed."""
        old, new = past.manifest, self.content
        resumed = {"step": past.step, "time": time.time(), "branch": past.branch}
        self._list_gone(old["layers"])
        new["created"] = old["created"]
        new["revision"] = old.get("revision", 0) + 1
        new["config"] = new["config"] or old["config"]
        new["problems"] = list(old["problems"])
        new["resumed"] = [*old.get("resumed", []), resumed]
        new["changes"] = list(past.changes)
        counted = old["progress"].get("counted", [])
        new["progress"] = {
            **new["progress"],
            **old["progress"],
            "step": past.last_step,
            "measured": past.measured,
            "overflowed": old["progress"].get("overflowed", 0),
            "counted": [pair for pair in counted if pair[0] <= past.step],
        }

    def _list_gone(self, before: Sequence[Mapping[str, Any]]) -> None:
        """List the layers of before that are gone, too."""
        layers = self.content["layers"]
        names = {entry["name"] for entry in layers}
        layers += [entry for entry in before if entry["name"] not in names]

    def beat(self) -> None:
        """Say that the writer is alive, and who it is."""
        self.content["writer"] = plain(Writer.current())
        self.content["heartbeat"] = time.time()

    def write(self) -> None:
        """Replace the file."""
        temporary = self._path.with_name(self._path.name + TEMPORARY)
        text = manifest_text(self.content)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink()
            raise
        self._mark = self._marked()

    def is_there(self) -> bool:
        """Whether the file exists."""
        return self._path.exists()

    def is_foreign(self) -> bool:
        """Whether another run's manifest has taken the place of this one.

        Raises:
            OSError: the file cannot be read.
        """
        mark = self._marked()
        if mark == self._mark:
            return False
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            identity = [found[key] for key in _IDENTITY]
        except (ValueError, KeyError, TypeError):
            return False  # somebody is editing it; the next `write` mends it
        if identity != [self.content[key] for key in _IDENTITY]:
            return True
        self._mark = mark
        return False

    def _marked(self) -> tuple[int, ...]:
        """What tells the file from any later one."""
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size


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
