"""What the dashboard's server needs for runs of any length: open, draw, follow, memory.

Every figure is that of a fresh process; before a cold one the operating system is asked
to forget the files. Ticks are those of a run that the real recorder writes meanwhile,
on top of so many steps; they include all that the server does for an open page.

    python -m tests.benchmarks.dashboard [--run FOLDER] [--ticks 10000 100000]
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from dynoscope.dashboard.counts import count_plot
from dynoscope.dashboard.heatmap import rotation_map
from dynoscope.dashboard.plots import (
    DEFAULT_COUNTS,
    DEFAULT_METRICS,
    layer_columns,
    layer_plot,
    lr_plot,
    scalar_plot,
)
from dynoscope.dashboard.store import Store
from dynoscope.dashboard.theme import SCHEMES
from tests.benchmarks.long_run import follow_run, forget, megabytes, write_run

RESULTS: Final = Path(__file__).parent / "results" / "dashboard.csv"
LIGHT: Final = SCHEMES["light"]
TICKS: Final = 20
PAUSE: Final = 1.0
"""Seconds between ticks, as on an open page."""


class Took(NamedTuple):
    """Seconds on the clock, and of the processor."""

    wall: float
    cpu: float


def timed(work: Callable[[], Any]) -> Took:
    """What it takes."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - start, time.process_time() - cpu)


class Page:
    """What the server of an open page does.

    Args:
        folder: the run.
    """

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)
        self._store.scan()
        self._store.refresh([folder.name])
        self._states = self._store.states([folder.name])
        (self._state,) = self._states.values()
        names = self._state.layer_names
        self.layer, self.other = names[len(names) // 2], names[-1]

    def draw_map(self) -> Any:
        """The map of all layers."""
        return rotation_map(self._state, self.layer, LIGHT).figure

    def draw_one(self) -> Any:
        """One layer, one metric that nothing was read of."""
        return layer_plot(self._states, self.other, "momentum_norm", LIGHT).figure

    def draw_layer(self, layer: str) -> list[Any]:
        """The cards of a layer, as they are by default."""
        for table, columns in layer_columns(DEFAULT_METRICS).items():
            self._state.held(table, layer, columns)
        return [
            layer_plot(self._states, layer, m, LIGHT).figure for m in DEFAULT_METRICS
        ]

    def draw(self) -> list[Any]:
        """All that is on the page."""
        return [
            self.draw_map(),
            scalar_plot(self._states, "loss", LIGHT, log=False).figure,
            lr_plot(self._states, LIGHT).figure,
            *self.draw_layer(self.layer),
            *(count_plot(self._states, n, LIGHT).figure for n in DEFAULT_COUNTS),
        ]

    def zoom(self) -> Any:
        """A hundredth of one layer's metric, step by step."""
        last = self._state.run.last_step or 0
        window = last // 2, last // 2 + last // 100 + 1
        plot = layer_plot(self._states, self.layer, "grad_l2", LIGHT, window)
        return plot.figure

    def tick(self) -> str:
        """Look for what is new; draw and encode all, as if it had been asked for."""
        self._store.scan()
        self._store.refresh([*self._states])
        return json.dumps(self.draw())

    @property
    def held(self) -> float:
        """Megabytes of the curves that are held."""
        return sum(track.nbytes for track in self._state.tracks) / 1e6


def opened(folder: Path) -> dict[str, float]:
    """What it takes until a page stands, and for what is asked for then."""
    found: dict[str, float] = {"MB of imports": megabytes()}

    def note(name: str, work: Callable[[], Any]) -> None:
        took = timed(work)
        found[name], found[f"{name}, CPU"] = took

    took = timed(lambda: Page(folder).draw_map())
    found["open and overview"], found["open and overview, CPU"] = took
    page = Page(folder)
    note("the rest of the page", page.draw)
    note("one layer, one metric", page.draw_one)
    note("another layer", lambda: page.draw_layer(page.other))
    note("the whole model", lambda: page.draw_layer("*"))
    note("zoom", page.zoom)
    note("all again", page.draw)
    return {**found, "MB held": page.held, "MB": megabytes()}


def followed(folder: Path) -> dict[str, float]:
    """What ticks take while the run is written."""
    page = Page(folder)
    page.draw()
    took, drawn = [], 0
    for _ in range(TICKS):
        time.sleep(PAUSE)
        took.append(timed(lambda: page.tick()))
        drawn += 1
    walls, cpus = zip(*took, strict=True)
    return {
        "tick": statistics.median(walls),
        "tick, CPU": statistics.median(cpus),
        "longest tick": max(walls),
        "longest tick, CPU": max(cpus),
        "ticks": drawn,
        "MB": megabytes(),
    }


def _elsewhere(what: str, folder: Path) -> dict[str, float]:
    """Do it in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, what, "--run", str(folder)]
    found: dict[str, float] = json.loads(subprocess.check_output(command))
    return found


def _while_written(steps: int, layers: int) -> dict[str, float]:
    """Ticks on a run that goes on after so many steps."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = [
            *(sys.executable, "-m", __spec__.name, "--write", str(steps)),
            *("--layers", str(layers), "--run", str(folder)),
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdin is not None
            writer.stdout.readline()  # it stands at that step, and goes on
            found = _elsewhere("--follow", folder)
            writer.stdin.close()
        return found


def _rows(
    options: argparse.Namespace, folder: Path
) -> Iterator[tuple[str, dict[str, float]]]:
    for temperature in ("cold", "warm"):
        if temperature == "cold":
            forget(folder)
        yield temperature, _elsewhere("--open", folder)
    for steps in options.ticks:
        yield f"{steps:,} steps, written", _while_written(steps, options.layers)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", type=Path, help="a long run; a small one is made if not"
    )
    parser.add_argument("--ticks", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--open", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        follow_run(options.run, options.write, options.layers)
        return
    if options.open or options.follow:
        print(json.dumps((opened if options.open else followed)(options.run)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.run or Path(scratch) / "run"
        if not folder.exists():
            write_run(folder, 10_000, options.layers)
        with RESULTS.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["when", "what", "value", "load"])
            for when, found in _rows(options, folder):
                load = os.getloadavg()[0]
                for what, value in found.items():
                    print(f"{when:>24}  {what:<28} {value:10.4f}")
                    table.writerow([when, what, f"{value:.5g}", f"{load:.2f}"])


if __name__ == "__main__":
    main()
