"""What the dashboard's server needs for runs of any length: open, draw, follow, memory.

Every figure is that of a fresh process; before a cold one the operating system is asked
to forget the files. Ticks are those of a run that the real recorder writes meanwhile,
on top of so many steps; they include all that the server does for an open page.

    python -m tests.benchmarks.dashboard [--run FOLDER]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from dynoscope import open_run
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
from dynoscope.recorder import Recorder
from dynoscope.sealing import Sealer
from tests.benchmarks.figures import Figure, keep, middle, once
from tests.benchmarks.long_run import (
    LONG,
    LOOKS,
    forget,
    measurements,
    megabytes,
    put,
    subject,
    write_run,
)
from tests.benchmarks.options import parse

LIGHT: Final = SCHEMES["light"]
TICKS: Final = 20
PAUSE: Final = 1.0
"""Seconds between ticks, as on an open page."""

RATE: Final = 20
"""Steps a second that are written meanwhile."""


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


def opened(folder: Path) -> list[Figure]:
    """What it takes until a page stands, and for what is asked for then."""
    found = [once("", "memory of imports", megabytes(), "MB")]

    def note(what: str, work: Callable[[], Any]) -> None:
        wall, cpu = timed(work)
        found.append(once("", what, 1e3 * wall, "ms"))
        found.append(once("", f"{what}, CPU", 1e3 * cpu, "ms"))

    note("open and overview", lambda: Page(folder).draw_map())
    page = Page(folder)
    note("the rest of the page", page.draw)
    note("one layer, one metric", page.draw_one)
    note("another layer", lambda: page.draw_layer(page.other))
    note("zoom", page.zoom)
    note("all again", page.draw)
    found.append(once("", "memory", megabytes(), "MB"))
    note("the whole model", lambda: page.draw_layer("*"))
    found.append(once("", "memory at most", megabytes(), "MB"))
    return [*found, once("", "memory of curves", page.held, "MB")]


def followed(folder: Path, ticks: int) -> list[Figure]:
    """What ticks take while the run is written."""
    page = Page(folder)
    page.draw()
    took = []
    for _ in range(ticks):
        time.sleep(PAUSE)
        took.append(timed(page.tick))
    walls, cpus = zip(*took, strict=True)
    return [
        middle("", "tick", [1e3 * wall for wall in walls], "ms"),
        middle("", "tick, CPU", [1e3 * cpu for cpu in cpus], "ms"),
        once("", "longest tick, CPU", 1e3 * max(cpus), "ms"),
        once("", "memory at most", megabytes(), "MB"),
    ]


def write_on(folder: Path, steps: int, layers: int) -> None:
    """Write so many steps, say so; then more each second until the input is closed."""
    watched = subject(layers)
    folder.mkdir(parents=True)
    sealer = Sealer(folder)
    recorder = Recorder(folder, watched, {}, strict=True, sealer=sealer)
    recorder.start()
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    for measurement in measurements(watched, 100 * steps):
        while not recorder.has_room():
            time.sleep(1e-3)
        put(recorder, measurement)
        if measurement.step == steps:
            while (open_run(folder).last_step or 0) < steps:
                time.sleep(0.1)
            # A training is never so fast that sealing lags behind.
            sealer.merge(lambda said: None)
            print("written", flush=True)
        if measurement.step >= steps and over.wait(1 / RATE):
            break
    recorder.close(None, 0)


def _elsewhere(*arguments: object) -> list[Figure]:
    """Do it in a process of its own."""
    said = subprocess.check_output(_command(*arguments))
    return [Figure(*fields) for fields in json.loads(said)]


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", __spec__.name, *map(str, arguments)]


def _while_written(steps: int, layers: int, ticks: int) -> list[Figure]:
    """Ticks on a run that goes on after so many steps."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        command = _command("--run", folder, "--write", steps, "--layers", layers)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdin is not None
            writer.stdout.readline()  # it stands at that step, and goes on
            found = _elsewhere("--run", folder, "--follow", ticks)
            writer.stdin.close()
        return found


def _measure(
    folder: Path, steps: Sequence[int], layers: int, ticks: int
) -> list[Figure]:
    forget(folder)
    looks = [_elsewhere("--run", folder, "--open") for _ in range(LOOKS)]
    found = [figure._replace(case="cold") for figure in looks[0]]
    for same in zip(*looks[1:], strict=True):
        values = [figure.value for figure in same]
        found.append(middle("warm", same[0].what, values, same[0].unit))
    for case, count in zip(("written, short", "written, long"), steps, strict=True):
        written = [once("", "steps", count), *_while_written(count, layers, ticks)]
        found += [figure._replace(case=case) for figure in written]
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, help="a long run; one is made if not")
    parser.add_argument("--layers", type=int, default=300)
    parser.add_argument("--open", action="store_true", help="only open that run")
    parser.add_argument("--follow", type=int, help="only follow it for so many ticks")
    parser.add_argument(
        "--write", type=int, help="only write it: so many steps, and on"
    )
    options = parse(__doc__, parser)
    if options.write is not None:
        write_on(options.run, options.write, options.layers)
    elif options.open or options.follow:
        only = options.run
        print(
            json.dumps(opened(only) if options.open else followed(only, options.follow))
        )
    else:
        steps = (500, 1000) if options.quick else (10_000, 100_000)
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.run or (options.scratch or Path(scratch)) / LONG
            if not folder.exists():
                write_run(folder, steps[-1], options.layers)
            ticks = 2 if options.quick else TICKS
            keep("dashboard", _measure(folder, steps, options.layers, ticks), options)


if __name__ == "__main__":
    main()
