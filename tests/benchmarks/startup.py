"""How long it takes to begin: `import dynoscope`, and `dynoscope --help`.

Each in a fresh interpreter, in turns with one that does nothing, whose time is taken
off that of the import.

    python -m tests.benchmarks.startup
"""

import subprocess
import sys
import time
from typing import Final

from tests.benchmarks.figures import keep, middle
from tests.benchmarks.options import parse

TIMES: Final = 11

COMMANDS: Final = {
    "python": ["-c", "pass"],
    "import dynoscope": ["-c", "import dynoscope"],
    "dynoscope --help": ["-m", "dynoscope", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """How long a fresh interpreter takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    options = parse(__doc__)
    took: dict[str, list[float]] = {command: [] for command in COMMANDS}
    for arguments in COMMANDS.values():
        seconds(arguments)  # byte code, and files in memory
    for _ in range(3 if options.quick else TIMES):
        for command, arguments in COMMANDS.items():
            took[command].append(1e3 * seconds(arguments))
    pairs = zip(took["import dynoscope"], took["python"], strict=True)
    took["import dynoscope"] = [both - bare for both, bare in pairs]
    keep("startup", [middle(c, "start", its, "ms") for c, its in took.items()], options)


if __name__ == "__main__":
    main()
