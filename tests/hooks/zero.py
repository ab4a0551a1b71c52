"""A training with ZeRO, by two processes, of which the first writes the run."""

from pathlib import Path

import torch
import torch.distributed

from tests.hooks.readings import check, net, record

__all__ = ["train_and_check"]


def train_and_check(rank: int, folder: Path) -> None:
    """Train as one of two; the run is held against what it should have."""
    # Importing it warns, for which a test would fail.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    model = net()
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(), torch.optim.AdamW, lr=1e-3, weight_decay=0.1
    )
    recorded = record(folder / "run", model, optimizer)
    if rank == 0:
        check(folder / "run", recorded)
    torch.distributed.destroy_process_group()
