"""What it takes to compare two long runs, each row of both, in a fresh process.

python -m tests.benchmarks.long_diff [--runs A B] [--steps 100000] [--layers 300]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from dynoscope import open_run
from dynoscope.diff import diff
from dynoscope.sealing import compact
from tests.benchmarks.figures import Figure, keep, middle, once
from tests.benchmarks.long_run import LONG, forget, megabytes, write_run
from tests.benchmarks.options import parse

OTHER: Final = "another"
TIMES: Final = 3


def compared(a: Path, b: Path) -> dict[str, float]:
    """Compare them; what it took."""
    start, cpu = time.perf_counter(), time.process_time()
    found = diff(open_run(a), open_run(b))
    return {
        "seconds": time.perf_counter() - start,
        "CPU": time.process_time() - cpu,
        "MB": megabytes(),
        "rows": 2.0 * found.layers["steps"].max() * found.layers["layer"].nunique(),
    }


def _elsewhere(a: Path, b: Path) -> dict[str, float]:
    """The same in a process of its own."""
    command: list[str | Path] = [sys.executable, "-m", __spec__.name]
    command += ["--compare", "--runs", a, b]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def measure(a: Path, b: Path) -> list[Figure]:
    """Compare two runs a few times, of which the first has to read from the disk."""
    forget(a)
    forget(b)
    looks = [_elsewhere(a, b) for _ in range(TIMES)]
    return [
        once("runs", "rows of layers", looks[0]["rows"]),
        once("cold", "time", looks[0]["seconds"], "s"),
        middle("warm", "time", [look["seconds"] for look in looks[1:]], "s"),
        middle("warm", "CPU", [look["CPU"] for look in looks[1:]], "s"),
        once("cold", "memory at most", looks[0]["MB"], "MB"),
    ]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, nargs=2, help="long runs; made if not")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--compare", action="store_true", help="only compare them")
    options = parse(__doc__, parser)
    if options.compare:
        print(json.dumps(compared(*options.runs)))
        return
    steps = options.steps or (2_000 if options.quick else 100_000)
    with tempfile.TemporaryDirectory() as scratch:
        within = options.scratch or Path(scratch)
        runs = options.runs or (within / LONG, within / OTHER)
        for seed, run in enumerate(runs):
            if not run.exists():
                write_run(run, steps, options.layers, seed)
                compact(run)  # written this fast, it is ahead of its sealing
        keep("long_diff", measure(*runs), options)


if __name__ == "__main__":
    main()
