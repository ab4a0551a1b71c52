"""What a run takes on disk: bytes for each row of each table, all metrics, sealed.

Real trainings, on small batches, so that they are soon over; every step measured.

    python -m tests.benchmarks.disk
"""

import tempfile
from pathlib import Path
from typing import Final

import torch

import dynoscope
from dynoscope.sealing import compact
from tests.benchmarks.figures import Figure, keep, once
from tests.benchmarks.options import parse
from tests.benchmarks.tasks import TASKS

STEPS: Final = {"gpt": 500, "conv": 2000}
LEVELS: Final = "levels"


def train(task: str, steps: int, folder: Path) -> None:
    """A watched training, sealed."""
    torch.manual_seed(0)
    made = TASKS[task]
    model = made.build()
    optimizer = made.optimizer(model)
    with dynoscope.watch(model, optimizer, run=folder, every=1, quiet=True) as scope:
        for _ in range(steps):
            loss = made.small(model)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scope.log(loss=loss)
    compact(folder)


def weigh(task: str, folder: Path) -> list[Figure]:
    """Bytes by table, those of its levels included."""
    run = dynoscope.open_run(folder)
    steps = (run.last_step or 0) + 1
    found = [once(task, "steps", steps)]
    for table in ("layers", "neurons", "normalization"):
        paths = [*folder.glob(f"{table}/*"), *folder.glob(f"{LEVELS}/{table}-*")]
        rows = run.table(table, ["step"]).num_rows
        if rows:
            size = sum(path.stat().st_size for path in paths)
            found.append(once(task, f"a row of {table}", size / rows, "bytes"))
    whole = sum(path.stat().st_size for path in folder.rglob("*.*") if path.is_file())
    found.append(once(task, "a step, everything", whole / steps, "bytes"))
    return found


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__)
    torch.set_num_threads(options.threads)
    found = []
    for task, steps in STEPS.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run"
            train(task, steps // 20 if options.quick else steps, folder)
            found += weigh(task, folder)
    keep("disk", found, options)


if __name__ == "__main__":
    main()
