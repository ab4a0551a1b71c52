"""A long training in which nothing may pile up: reports its resources as it goes."""

import gc
import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dynoscope

LOOKS = 50


def resources(run: Path, scope: Any) -> dict[str, float]:
    """Memory, open files, threads, and files of the run, with nothing that waits."""
    while scope._recorder._inbox.nbytes:
        time.sleep(0.02)
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "step": scope.step,
        "rss": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,  # MB
        "handles": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "blocks": sys.getallocatedblocks(),
        "files": sum(len(files) for _, _, files in os.walk(run)),
        "problems": len(scope._recorder._manifest.content["problems"]),
    }


def main(run: Path, steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = torch.randn(64, 8, 4)
    looks = []
    with dynoscope.watch(
        model, optimizer, run=run, every=1, quiet=True, histograms=True
    ) as scope:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 1e-3 * (1.1 + math.sin(step))
            loss = model(batches[step % 64]).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scope.log(loss=loss)
            if (step + 1) % (steps // LOOKS) == 0:
                looks.append(resources(run, scope))
    progress = dynoscope.open_run(run).manifest["progress"]
    print(json.dumps({"looks": looks, "progress": progress}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))
