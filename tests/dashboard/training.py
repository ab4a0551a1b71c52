"""A real training run, slow enough to watch: training.py FOLDER STEPS [fail] [bins]."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

import dynoscope


def main(folder: Path, steps: int, *, fail: bool, bins: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    with dynoscope.watch(
        model, optimizer, run=folder, every=1, histograms=bins, quiet=True
    ) as scope:
        for step in range(steps):
            inputs = torch.randn(32, 8)
            loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(1))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scope.log(loss=loss)
            time.sleep(0.01)
            if fail and step == steps // 2:
                raise ValueError("the data ran out")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]),
        fail="fail" in sys.argv,
        bins="bins" in sys.argv,
    )
