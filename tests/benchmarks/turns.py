"""Arms that take turns: each in a process of its own, still while others have theirs.

In its turn an arm plays pairs: steps with it on, and off. What is on is only held
against what is off beside it; turns spread each arm's pairs over the time that the
whole takes, for a machine that drifts, and their order is drawn anew for each round.
"""

import contextlib
import multiprocessing
import random
import signal
import statistics
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import NamedTuple

from dynoscope.recorder.journal import PART_SECONDS
from tests.benchmarks import arms, family
from tests.benchmarks.clocks import Cost
from tests.benchmarks.training import Pair, Recorded, Training, Turn

__all__ = ["Match", "Played", "play"]


class Match(NamedTuple):
    """What is to be trained, and how the turns are.

    Attributes:
        task: which network.
        pairs: of a turn, by arm.
        rounds: turns of each arm.
        threads: of torch.
        warm_up: steps before the first turn.
        tiny: steps before those, on small batches.
        small: whether all batches are small.
        stretch: steps of a turn with nothing but on, by arm; none: 0.
    """

    task: str
    pairs: Mapping[str, int]
    rounds: int
    threads: int
    warm_up: int = 2
    tiny: int = 0
    small: bool = False
    stretch: Mapping[str, int] = {}


class Played(NamedTuple):
    """What became of an arm.

    Attributes:
        turns: by round.
        after: CPU seconds of other threads for what the turns had left to them.
        children: CPU seconds of processes that it has started, up to then.
        closing: what its end cost.
        recorded: what its run says.
    """

    turns: list[Turn]
    after: float
    children: float
    closing: Cost
    recorded: Recorded

    @property
    def pairs(self) -> list[Pair]:
        """Of all rounds."""
        return [pair for turn in self.turns for pair in turn.pairs]

    @property
    def copies(self) -> list[float]:
        """Seconds of copies of all parameters, of all rounds."""
        return [seconds for turn in self.turns for seconds in turn.copies]

    @property
    def on(self) -> list[int]:
        """Steps that were watched, timed or not, by their numbers in the run."""
        return [step for turn in self.turns for step in turn.on]

    @property
    def beside(self) -> float:
        """CPU seconds of threads and processes that do not train, per watched step.

        The clock goes on while a training stands still: what is overdue when a stretch
        begins, files of a minute that are written anew, counts once a minute.
        """
        if not self.stretches:
            return self.steadily
        step = statistics.median(pair.on.cost.wall for pair in self.pairs)
        overdue = statistics.fmean(turn.overdue for turn in self.turns)
        return self.steadily + overdue * step / PART_SECONDS

    @property
    def steadily(self) -> float:
        """The same without what was overdue.

        That of threads by the stretches, if there are any: between pairs they have
        less to do at a time, and more often nothing.
        """
        children = self.children / len(self.on)
        if self.stretches:
            threads = sum(turn.beside_it for turn in self.turns)
            return threads / len(self.stretches) + children
        threads = sum(turn.beside for turn in self.turns) + self.after
        return threads / len(self.on) + children

    @property
    def stretches(self) -> list[int]:
        """Steps with nothing but on around them, by their numbers in the run."""
        return [step for turn in self.turns for step in turn.stretch]


def play(match: Match) -> dict[str, Played]:
    """Let the arms take their turns; what became of each."""
    pairs = {arm: n for arm, n in match.pairs.items() if arms.available(arm)}
    order, draw = list(pairs), random.Random(0)
    with contextlib.ExitStack() as stack:
        # A server that has torch loaded forks them: they start at once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["dynoscope.session", "tests.benchmarks.training"]
        )
        players: dict[str, _Player] = {}
        for arm in pairs:  # one after the other: many at once would be in their way
            players[arm] = stack.enter_context(_player(context, match, arm))
            players[arm].stand_still()
        turns: dict[str, list[Turn]] = {arm: [] for arm in pairs}
        for _ in range(match.rounds):
            draw.shuffle(order)
            for arm in order:
                stretch = match.stretch.get(arm, 0)
                turns[arm].append(players[arm].turn(pairs[arm], stretch))
        return {arm: players[arm].end(turns[arm]) for arm in pairs}


class _Player:
    """An arm's process, as the conductor sees it."""

    def __init__(self, pid: int, pipe: Connection) -> None:
        self._pid, self._pipe = pid, pipe
        self._before = 0.0

    def stand_still(self) -> None:
        """Wait until it has warmed up, and stop it."""
        self._pipe.recv()
        family.tell(self._pid, signal.SIGSTOP)
        self._before = family.children_seconds(self._pid)

    def turn(self, pairs: int, stretch: int) -> Turn:
        family.tell(self._pid, signal.SIGCONT)
        self._pipe.send((pairs, stretch))
        turn: Turn = self._pipe.recv()
        family.tell(self._pid, signal.SIGSTOP)
        return turn

    def end(self, turns: list[Turn]) -> Played:
        """Let it end, which is apart from its turns."""
        family.tell(self._pid, signal.SIGCONT)
        self._pipe.send(None)
        after: float = self._pipe.recv()
        children = family.children_seconds(self._pid) - self._before
        self._pipe.send("close")
        closing: Cost = self._pipe.recv()
        recorded: Recorded = self._pipe.recv()
        return Played(turns, after, children, closing, recorded)


@contextlib.contextmanager
def _player(
    context: multiprocessing.context.ForkServerContext, match: Match, arm: str
) -> Iterator[_Player]:
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, match, arm))
    process.start()
    there.close()  # so that the end of the process is an EOFError here
    assert process.pid is not None
    try:
        yield _Player(process.pid, here)
        process.join()
    finally:
        family.tell(process.pid, signal.SIGKILL)
        here.close()


def _work(pipe: Connection, match: Match, arm: str) -> None:
    """In the arm's process."""
    training = Training(match.task, arm, match.threads, small=match.small)
    training.warm_up(match.warm_up, match.tiny)
    pipe.send("ready")
    while asked := pipe.recv():
        pipe.send(training.turn(*asked))
    pipe.send(training.settle())
    pipe.recv()
    pipe.send(training.close())
    pipe.send(training.recorded())
