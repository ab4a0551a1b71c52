"""Folders that are full, closed or gone: training goes on, losses are counted.

File systems are mounted in a namespace of the test's own, where that is permitted;
a limit on the size of files, which every system has, stands for a full disk as well.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.networks import OPTIMIZERS, MixedNet, train
from tests.recorder.bad_disk import STEPS

ROOT = Path(__file__).parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
THIRD = STEPS // 3


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    trial = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@functools.cache
def suffer(folder: Path, *modes: str) -> dict[str, dict[str, Any]]:
    """What came of a training in each mode, one after the other in a process."""
    command = [sys.executable, "-m", "tests.recorder.bad_disk", str(folder), *modes]
    if "full" in modes:
        if not can_mount():
            pytest.skip("no file system may be mounted here")
        command = [*NAMESPACE, *command]
    if "closed" in modes and os.geteuid() == 0:
        if not can_mount():
            pytest.skip("root may write to every folder")
        command = [*NAMESPACE[:2], *command]  # as one who has root's name alone
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = dict(zip(modes, map(json.loads, done.stdout.splitlines()), strict=True))
    said = [problem for mode in modes for problem in found[mode]["said"]]
    assert done.stderr.splitlines() == [f"dynoscope: {problem}" for problem in said]
    assert {each["weights"] for each in found.values()} == {undisturbed()}
    return found


LIMITED = ("limit", "limit for good", "deleted")
FULL = ("full", "full for good")


def undisturbed() -> str:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    for _ in range(3):
        train(model, optimizer, THIRD)
    torch.set_num_threads(threads)
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    return hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize("modes", [LIMITED, FULL])
def test_a_disk_that_is_full_for_a_while_loses_nothing(
    modes: tuple[str, ...], folder: Path
) -> None:
    found = suffer(folder, *modes)[modes[0]]
    assert found["status"] == "finished"
    assert found["steps"] == found["neurons"] == list(range(STEPS))
    assert found["losses"] == list(range(THIRD, 2 * THIRD))
    assert found["progress"]["measured"] == STEPS
    assert found["progress"]["lost"] == found["progress"]["lost_rows"] == 0
    assert any("rows wait in memory" in problem for problem in found["problems"])


@pytest.mark.parametrize("modes", [LIMITED, FULL])
def test_a_disk_that_stays_full_keeps_what_it_had(
    modes: tuple[str, ...], folder: Path
) -> None:
    found = suffer(folder, *modes)[modes[1]]
    progress = found["progress"]
    assert found["steps"] == list(range(progress["measured"]))
    assert progress["measured"] >= THIRD
    assert progress["measured"] + progress["lost"] == STEPS
    assert progress["lost"] > 0
    lost = f"{progress['lost']} measured steps and {progress['lost_rows']} other rows"
    assert any(lost in problem for problem in found["said"])


def test_a_folder_that_is_deleted_loses_what_was_in_it(folder: Path) -> None:
    found = suffer(folder, *LIMITED)["deleted"]
    assert found["status"] == "finished"
    assert found["steps"] == found["neurons"] == list(range(THIRD, STEPS))
    assert found["progress"]["lost"] == THIRD
    assert found["progress"]["measured"] == STEPS - THIRD
    assert any("begun anew" in problem for problem in found["problems"])


def test_a_folder_that_is_closed_for_a_while_loses_nothing(folder: Path) -> None:
    found = suffer(folder, "closed")["closed"]
    assert found["status"] == "finished"
    assert found["steps"] == found["neurons"] == list(range(STEPS))
    assert found["losses"] == list(range(THIRD, 2 * THIRD))
    assert any("Permission denied" in problem for problem in found["problems"])
