"""A training under one arm, on and off in turn, and what its run says of itself.

Steps that are near each other in time, in one process, on the same memory, are alike
within a percent or so, where processes, and seconds, differ by ten.
"""

import contextlib
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn

import dynoscope
from tests.benchmarks.arms import ARMS, Observer
from tests.benchmarks.clocks import Clocks, Cost
from tests.benchmarks.copies import Copier
from tests.benchmarks.tasks import TASKS

__all__ = ["PACES", "Half", "Pace", "Pair", "Recorded", "Training", "Turn"]


class Pace(NamedTuple):
    """How on and off take turns.

    Attributes:
        steps: of a half that are timed.
        leads: how many there are before them is drawn from these: what the last step
            of the other kind has left in caches does not count, and halves do not keep
            step with measurements.
        warming: steps of each half of the pair that begins a turn, which is not timed;
            between those of the second, all parameters are copied.
    """

    steps: int
    leads: tuple[int, ...]
    warming: int


PACES: Final = {"gpt": Pace(1, (0,), 1), "conv": Pace(2, (1, 2), 8)}
"""Short halves: steps side by side are the most alike. The GPT has no lead, which would
double its error: what a watched step leaves to the next one is not told apart there."""

SETTLE: Final = 0.8
"""Seconds in which dynoscope's writer has looked, and done what there was to do."""


class Half(NamedTuple):
    """Steps in a row, all watched or none.

    Attributes:
        cost: of a step.
        steps: those that were timed, by their numbers in the run.
        optimizer: seconds from the end of backward to that of the optimizer's step, by
            the clock: what hangs on the optimizer is in them.
    """

    cost: Cost
    steps: range
    optimizer: float


class Pair(NamedTuple):
    """Two halves, one right after the other."""

    on: Half
    off: Half


class Turn(NamedTuple):
    """What an arm did while the others stood still.

    Attributes:
        pairs: of halves.
        on: numbers of all steps that were watched, timed or not.
        beside: CPU seconds of threads that do not train.
        stretch: steps that were watched before the pairs, one after the other.
        beside_it: CPU seconds of those threads for these steps.
        overdue: what they took before that, for it was due by the clock: that goes on
            while a training stands still.
        copies: seconds of copies of all parameters, between backward and step.
    """

    pairs: list[Pair]
    on: list[int]
    beside: float
    stretch: range = range(0)
    beside_it: float = 0.0
    overdue: float = 0.0
    copies: Sequence[float] = ()


class Recorded(NamedTuple):
    """What a run has recorded of itself.

    Attributes:
        measured: the steps at which it measured.
        counted: those at which it filled histograms.
        costs: seconds that it says it took, by step; threads' where they were told.
    """

    measured: frozenset[int] = frozenset()
    counted: frozenset[int] = frozenset()
    costs: dict[int, float] = {}  # noqa: RUF012


class Training:
    """Trains for some steps at a time.

    Args:
        task: which network.
        arm: what watches.
        threads: of torch.
        small: whether batches are small throughout.
    """

    def __init__(self, task: str, arm: str, threads: int, *, small: bool) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.task, self._pace = TASKS[task], PACES[task]
        self.model = self.task.build()
        self.optimizer = self.task.optimizer(self.model)
        self._loss = self.task.small if small else self.task.loss
        self._draw = random.Random(0)
        self._observer: Observer | None = None
        self._on, self._taken, self._in_optimizer = False, 0, 0.0
        self._watched: list[int] = []
        self._train(1)  # starts the threads
        self._clocks = Clocks(lambda: self._train(2))
        self._outer, self._watching = contextlib.ExitStack(), contextlib.ExitStack()
        scratch = self._outer.enter_context(
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        )
        self._folder = Path(scratch)
        opened = ARMS[arm](self._folder, self.model, self.optimizer)
        self._observer, self._taken = self._watching.enter_context(opened), 0
        self._switch(on=True)

    def warm_up(self, steps: int, tiny: int = 0) -> None:
        """Train for so many steps, `tiny` of them first on small batches; then rest."""
        self._train(tiny, self.task.small)
        self._train(steps)
        self._switch(on=False)
        self.settle()

    def turn(self, pairs: int, stretch: int = 0) -> Turn:
        """Train: at first for a stretch with nothing but on, then on and off."""
        start, self._watched = self._clocks.now(), []
        beside_it, overdue, alone = 0.0, 0.0, range(0)
        if stretch:
            lead = self._pace.warming
            overdue = self._alone(lead)
            overdue -= self._alone(lead)  # steps alone; the run has told of it by then
            first, beside_it = self._taken, self._alone(stretch)
            alone = range(first, self._taken)
        # Nobody looks: it has stood still for long.
        self._half(0, self._pace.warming, on=True)
        copies = self._copies()
        played = [self._pair() for _ in range(pairs)]
        self._switch(on=False)
        beside = (self._clocks.now() - start).beside
        return Turn(played, self._watched, beside, alone, beside_it, overdue, copies)

    def _alone(self, steps: int) -> float:
        """Train with nothing but on; CPU seconds of other threads for it."""
        start = self._clocks.now()
        self._half(steps - 1, 1, on=True)
        self.settle()
        return (self._clocks.now() - start).beside

    def settle(self) -> float:
        """Give other threads the time to end their work; CPU seconds that they took."""
        start = self._clocks.now()
        time.sleep(SETTLE)
        return (self._clocks.now() - start).beside

    def close(self) -> Cost:
        """End the watching; what that cost, children that end with it beside."""
        start, children = self._clocks.now(), _children()
        self._watching.close()
        cost = self._clocks.now() - start
        return cost._replace(beside=cost.beside + _children() - children)

    def recorded(self) -> Recorded:
        """What the run says, once closed; the folder is gone after that."""
        with self._outer:
            folder = self._folder / "run"
            return read(folder) if folder.exists() else Recorded()

    def _pair(self) -> Pair:
        lead = self._draw.choice(self._pace.leads)
        order = self._draw.choice([(True, False), (False, True)])
        halves = {on: self._half(lead, self._pace.steps, on=on) for on in order}
        return Pair(halves[True], halves[False])

    def _copies(self) -> Sequence[float]:
        self._switch(on=False)
        copier = Copier(self.model)
        self._train(self._pace.warming, between=copier)
        return copier.seconds

    def _half(self, lead: int, steps: int, *, on: bool) -> Half:
        self._switch(on=on)
        first = self._taken
        self._train(lead)
        before, start = self._in_optimizer, self._clocks.now()
        self._train(steps)
        cost = (self._clocks.now() - start) / steps
        if on:
            self._watched += range(first, self._taken)
        optimizer = (self._in_optimizer - before) / steps
        return Half(cost, range(first + lead, self._taken), optimizer)

    def _switch(self, *, on: bool) -> None:
        self._on = on
        if self._observer is not None:
            self._observer.switch(on=on)

    def _train(
        self,
        steps: int,
        loss_of: Callable[[nn.Module], torch.Tensor] | None = None,
        between: Callable[[], None] | None = None,
    ) -> None:
        for _ in range(steps):
            loss = (loss_of or self._loss)(self.model)
            loss.backward()
            if between is not None:
                between()
            start = time.perf_counter()
            if self._on and self._observer is not None:
                self._observer.observe(self.model, loss)
            self.optimizer.step()
            self._in_optimizer += time.perf_counter() - start
            self.optimizer.zero_grad()
        self._taken += steps


def read(folder: Path) -> Recorded:
    """What a run of dynoscope says of itself."""
    run = dynoscope.open_run(folder)
    names = [f"dynoscope/{who}_seconds" for who in ("hook", "device", "background")]
    own = run.scalars(names).groupby("step")["value"].sum()
    return Recorded(
        frozenset(run.layers(["step"])["step"]),
        frozenset(run.histograms()["step"]),
        dict(zip(own.index.tolist(), own.tolist(), strict=True)),
    )


def _children() -> float:
    """CPU seconds of children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
