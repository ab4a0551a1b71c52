"""Processes that talk to each other, for tests of what is distributed."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch.multiprocessing.spawn import start_processes

Run = Callable[[int, int, Path], None]


def spawn(run: Run, world: int, folder: Path, seconds: float = 300) -> None:
    """Call `run(rank, world, folder)` in processes of its own; all have to succeed."""
    processes = start_processes(run, (world, folder), nprocs=world, join=False)
    assert processes is not None
    end = time.monotonic() + seconds
    while not processes.join(timeout=max(end - time.monotonic(), 0)):
        if time.monotonic() > end:
            for process in processes.processes:
                process.kill()
            pytest.fail(f"{world} processes took longer than {seconds} s")


def exit_codes(run: Run, world: int, folder: Path, seconds: float) -> list[int | None]:
    """The same, where some do not; None for one that had not ended by then."""
    context = start_processes(run, (world, folder), nprocs=world, join=False)
    assert context is not None
    end = time.monotonic() + seconds
    for process in context.processes:
        process.join(max(end - time.monotonic(), 0))
    codes = [process.exitcode for process in context.processes]
    for process in context.processes:
        process.kill()
        process.join()
    return codes


def join_group(rank: int, world: int, folder: Path) -> None:
    """Initialise the processes' group, one thread each."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
