"""What every part of the suite is told: how long, where to, with how many threads."""

import argparse
import os
import tempfile
import time
from pathlib import Path

__all__ = ["RESULTS", "Options", "parse"]

RESULTS = Path(__file__).parent / "results"


class Options(argparse.Namespace):
    """The command line of a part.

    Attributes:
        quick: a smoke test: everything is run, nothing is measured well.
        results: folder for the CSV files.
        threads: of torch.
        scratch: folder for runs that several parts read, None for none.
        began: when the part did, by `time.time`.
        load: average over the minute before.
    """

    quick: bool
    results: Path
    threads: int
    scratch: Path | None
    began: float
    load: float


def parse(doc: str | None, parser: argparse.ArgumentParser | None = None) -> Options:
    """Read the command line; `parser` has what the part adds to it."""
    parser = parser or argparse.ArgumentParser()
    parser.description = (doc or "").splitlines()[0]
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    parser.add_argument("--results", type=Path, help="folder for the CSV files")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--scratch", type=Path, help="for runs that parts share")
    began = Options(began=time.time(), load=os.getloadavg()[0])
    options = parser.parse_args(namespace=began)
    if options.results is None:
        quick = Path(tempfile.gettempdir()) / "dynoscope-quick-benchmarks"
        options.results = quick if options.quick else RESULTS
    return options
