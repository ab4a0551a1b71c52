"""The whole suite, or parts of it; then the plots and the README's table.

Each part runs in a process of its own and leaves a CSV file; `table` alone makes plots
and table anew from those that are there.

    python -m tests.benchmarks [names...] [--quick] [--results FOLDER]
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from typing import Final

from tests.benchmarks.options import RESULTS, parse
from tests.benchmarks.plots import draw
from tests.benchmarks.table import put, section

__all__ = ["PARTS", "present"]

PARTS: Final = (
    "startup",
    "overhead",
    "budget",
    "hooks",
    "gil",
    "growth",
    "disk",
    "long_run",
    "dashboard",
    "long_diff",
    "optimizers",
)


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(PARTS))
    options = parse(__doc__, parser)
    names = options.names or present()
    if unknown := set(names) - {*PARTS, "table"}:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(PARTS)}, table")
    flags = ["--threads", str(options.threads), "--results", str(options.results)]
    flags += ["--quick"] * options.quick
    with tempfile.TemporaryDirectory() as scratch:
        flags += ["--scratch", scratch]
        for name in names:
            if name != "table":
                module = f"tests.benchmarks.{name}"
                subprocess.run([sys.executable, "-m", module, *flags], check=True)
    draw(options.results)
    if options.results == RESULTS:
        put(options.results)
    else:
        print(section(options.results))


def present() -> list[str]:
    """The parts that there are."""
    found = importlib.util.find_spec
    return [part for part in PARTS if found(f"tests.benchmarks.{part}")]


if __name__ == "__main__":
    main()
