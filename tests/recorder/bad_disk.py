"""Trainings whose disk fails: says how each ended, and how its run stands."""

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dynoscope
from dynoscope.recorder import disk, recorder
from tests.networks import OPTIMIZERS, MixedNet, train

STEPS = 60
FOR_GOOD = " for good"


def limit(size: int) -> None:
    """Let no file grow beyond so many bytes."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))


def allow(run: Path, mode: int) -> None:
    """Let files be made in the run's folders, or not."""
    for folder in (run, *(path for path in run.iterdir() if path.is_dir())):
        folder.chmod(mode)


def fill(folder: Path) -> None:
    """Leave no room on the disk of a folder."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def settle(scope: Any, *, is_written: bool) -> None:
    """Wait until what is queued is written, or until it is known that it cannot be."""
    inner = scope._recorder
    end = time.monotonic() + 30
    while time.monotonic() < end:
        time.sleep(0.02)
        if inner._inbox.nbytes == 0 and (inner._disk.nbytes == 0) == is_written:
            return
    raise TimeoutError(f"{inner.progress}, {inner._disk.nbytes} bytes wait")


Act = Callable[[Path], None]
BREAK: dict[str, Act] = {
    "limit": lambda run: limit(4096),
    "full": lambda run: fill(run.parent),
    "closed": lambda run: allow(run, 0o555),
    "deleted": lambda run: shutil.rmtree(run.parent),
}
MEND: dict[str, Act] = {
    "limit": lambda run: limit(resource.RLIM_INFINITY),
    "full": lambda run: (run.parent / "ballast").unlink(),
    "closed": lambda run: allow(run, 0o755),
    "deleted": lambda run: None,
}


def main(mode: str, run: Path) -> None:
    """Train; break what the mode names, and mend it, soon or after the end."""
    lasting = mode.endswith(FOR_GOOD)
    mode = mode.removesuffix(FOR_GOOD)
    run.parent.mkdir()
    torch.manual_seed(0)
    if mode == "full":
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(run.parent)]
        subprocess.run(command, check=True)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    with dynoscope.watch(model, optimizer, run=run, quiet=True) as scope:
        train(model, optimizer, STEPS // 3)
        settle(scope, is_written=True)
        BREAK[mode](run)
        train(model, optimizer, STEPS // 3, lambda loss: scope.log(loss=loss))
        if mode in ("limit", "full"):
            settle(scope, is_written=False)
        if not lasting:
            MEND[mode](run)
        train(model, optimizer, STEPS // 3)
        settle(scope, is_written=not lasting)
    if lasting:
        MEND[mode](run)
    report(run, scope, model)


def report(run: Path, scope: Any, model: torch.nn.Module) -> None:
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    found = dynoscope.open_run(run)
    content = {
        "weights": hashlib.sha256(weights).hexdigest(),
        "status": found.status,
        "problems": found.problems,
        "said": scope._recorder._manifest.content["problems"],
        "progress": scope._recorder.progress,
        "steps": found.layers()["step"].unique().tolist(),
        "neurons": found.neurons()["step"].unique().tolist(),
        "losses": found.scalars("loss")["step"].tolist(),
    }
    print(json.dumps(content))


if __name__ == "__main__":
    torch.set_num_threads(1)
    disk.GRACE = 0.3  # type: ignore[misc]
    disk.FIRST_PAUSE, disk.LONGEST_PAUSE = 0.01, 0.05  # type: ignore[misc]
    recorder.INTERVAL = recorder.LATEST = 0.01  # type: ignore[misc]
    recorder.HEARTBEAT = 0.05  # type: ignore[misc]
    for mode in sys.argv[2:]:
        main(mode, Path(sys.argv[1]) / mode / "run")
