"""What the writer takes from a training that Python itself holds up.

Each step of a tiny network does as much again in plain Python, so that the training is
after the interpreter's lock all the time. It is trained bare, with hooks whose
measurements nobody takes, and with the writer; what the last two differ by is the
writer's. Turns are short, for a machine that drifts, and many. Meanwhile a thread
wakes each millisecond, and says how late it was.

    python -m tests.benchmarks.gil [--seconds 1.2] [--rounds 14]
"""

import argparse
import contextlib
import functools
import itertools
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import torch
from torch import nn

import dynoscope
from dynoscope.hooks import Watcher, find_watched
from dynoscope.measurement import Measurement, Work
from dynoscope.schedule import every
from tests.benchmarks.figures import Figure, keep, middle
from tests.benchmarks.options import parse
from tests.benchmarks.ratios import Kind, as_figure, as_it_was, estimated

LAYERS, WIDTH = 12, 32
SHARES = range(60_000)
"""What a step adds up in plain Python: about as long as the network takes."""

Watching: TypeAlias = contextlib.AbstractContextManager[object]


class Turn(NamedTuple):
    """What a turn was like: seconds.

    Attributes:
        step: a step took.
        writer: the writer's thread was at work in it, per step.
        late: how late each awakening was, the latest last.
    """

    step: float
    writer: float
    late: list[float]


class Nobody:
    """Takes no measurement."""

    work = Work(0.0, 0)

    def has_room(self) -> bool:
        """Always."""
        return True

    def put(self, measurement: Measurement) -> None:
        """Let it fall."""

    def note(self, problem: str) -> None:
        """There is none."""

    def fail(self, problem: str, error: Exception) -> None:
        """Never mind the rest."""
        raise error


@contextlib.contextmanager
def hooks_only(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The hooks of every step, and no writer."""
    find = functools.partial(
        find_watched, model, optimizer, include=None, exclude=None, neurons=True
    )
    watcher = Watcher(find, every(1))
    watcher.attach(Nobody())
    try:
        yield
    finally:
        watcher.detach()


@contextlib.contextmanager
def recorded(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[object]:
    """Every step is recorded."""
    with (
        tempfile.TemporaryDirectory() as folder,
        dynoscope.watch(
            model, optimizer, run=Path(folder) / "run", every=1, quiet=True
        ) as scope,
    ):
        yield scope


ARMS: Final[Mapping[str, Callable[[nn.Module, torch.optim.Optimizer], Watching]]] = {
    "bare": lambda model, optimizer: contextlib.nullcontext(),
    "hooks only": hooks_only,
    "recorded": recorded,
}


def turn(arm: str, seconds: float) -> Turn:
    """Train for so long."""
    torch.manual_seed(0)
    layers = [(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)) for _ in range(LAYERS)]
    model = nn.Sequential(*itertools.chain.from_iterable(layers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    batch = torch.randn(8, WIDTH)

    def step() -> None:
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        sum(share * share for share in SHARES)

    with ARMS[arm](model, optimizer):
        for _ in range(10):
            step()
        clocks = [
            time.pthread_getcpuclockid(thread.ident)
            for thread in threading.enumerate()
            if thread.name.startswith("dynoscope-") and thread.ident is not None
        ]
        with awake() as late:
            before = sum(map(time.clock_gettime, clocks))
            start, steps = time.perf_counter(), 0
            while time.perf_counter() < start + seconds:
                step()
                steps += 1
            took = time.perf_counter() - start
            writer = sum(map(time.clock_gettime, clocks)) - before
    return Turn(took / steps, writer / steps, sorted(late))


@contextlib.contextmanager
def awake() -> Iterator[list[float]]:
    """A thread that wants to wake each millisecond; how late it was each time."""
    late: list[float] = []
    done = threading.Event()

    def wake() -> None:
        while not done.is_set():
            start = time.perf_counter()
            time.sleep(1e-3)
            late.append(time.perf_counter() - start - 1e-3)

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        yield late
    finally:
        done.set()
        thread.join()


def figures(turns: Mapping[str, list[Turn]]) -> Iterator[Figure]:
    """What the rounds say, each arm against others of its round."""
    for arm, its in turns.items():
        yield middle(arm, "a step", [1e3 * each.step for each in its], "ms")
        for what, at in (("99 of 100 awakenings late", 0.99), ("the latest", 1.0)):
            late = [1e3 * each.late[int(at * (len(each.late) - 1))] for each in its]
            yield middle(arm, what, late, "ms")
    for base, arm in itertools.pairwise(turns):
        pairs = zip(turns[arm], turns[base], strict=True)
        ratios = [one.step / other.step for one, other in pairs]
        kinds = [Kind(0, 0)] * len(ratios)
        ratio = estimated(ratios, kinds, as_it_was(kinds))
        yield as_figure(f"{arm} by {base}", "wall ratio", ratio, len(ratios))
    writer = [1e6 * each.writer for each in turns["recorded"]]
    yield middle("recorded", "writer's CPU per step", writer, "us")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, help="of a turn")
    parser.add_argument("--rounds", type=int)
    options = parse(__doc__, parser)
    torch.set_num_threads(1)
    seconds = options.seconds or (0.5 if options.quick else 1.2)
    turns: dict[str, list[Turn]] = {arm: [] for arm in ARMS}
    order, draw = list(ARMS), random.Random(0)
    for _ in range(options.rounds or (2 if options.quick else 14)):
        draw.shuffle(order)
        for arm in order:
            turns[arm].append(turn(arm, seconds))
    keep("gil", list(figures(turns)), options)


if __name__ == "__main__":
    main()
