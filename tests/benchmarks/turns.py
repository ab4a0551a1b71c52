"""Arms that take turns: each in a process of its own, still while others have theirs.

A machine drifts, and what came before leaves its traces. So turns are short, their
order is drawn anew for each round, and an arm is held against both bare arms of the
same round. What an arm's threads and children have left to do when its turn is over
they do in its next one.
"""

import contextlib
import multiprocessing
import random
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from tests.benchmarks import arms, family
from tests.benchmarks.training import Cost, Recorded, Training

__all__ = ["BARE", "Match", "Played", "play"]

BARE = ("bare", "bare again")


class Match(NamedTuple):
    """What is to be trained, and how the turns are.

    Attributes:
        task: which network.
        arms: besides the bare ones.
        steps: of a turn.
        rounds: turns of each arm.
        threads: of torch.
        warm_up: steps before the first turn.
        tiny: steps before those, on small batches.
        small: whether all batches are small.
    """

    task: str
    arms: Sequence[str]
    steps: int
    rounds: int
    threads: int
    warm_up: int = 2
    tiny: int = 0
    small: bool = False


class Played(NamedTuple):
    """What became of an arm.

    Attributes:
        costs: of one step, by round, with its part of the end.
        end: what the end of the arm added to each.
        turns: the steps of each round.
        recorded: what its run says.
    """

    costs: list[Cost]
    end: Cost
    turns: list[range]
    recorded: Recorded


def play(match: Match) -> dict[str, Played]:
    """Let the arms take their turns; what became of each."""
    wanted = [arm for arm in (*BARE, *match.arms) if arms.available(arm)]
    order, draw = list(wanted), random.Random(0)
    with contextlib.ExitStack() as stack:
        # A server that has torch loaded forks them: they start at once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["dynoscope.session", "tests.benchmarks.training"]
        )
        players = {
            arm: stack.enter_context(_player(context, match, arm)) for arm in wanted
        }
        for player in players.values():  # all have been started by now
            player.stand_still()
        costs: dict[str, list[Cost]] = {arm: [] for arm in wanted}
        for _ in range(match.rounds):
            draw.shuffle(order)
            for arm in order:
                costs[arm].append(players[arm].turn(match.steps))
        return {arm: _played(match, players[arm], costs[arm]) for arm in wanted}


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

    def turn(self, steps: int) -> Cost:
        family.tell(self._pid, signal.SIGCONT)
        self._pipe.send(steps)
        cost: Cost = self._pipe.recv()
        family.tell(self._pid, signal.SIGSTOP)
        return cost

    def end(self) -> tuple[Cost, Recorded]:
        """What the end cost, children from their start of the first turn on."""
        family.tell(self._pid, signal.SIGCONT)
        self._pipe.send(0)
        cost: Cost = self._pipe.recv()
        recorded: Recorded = self._pipe.recv()
        return Cost(cost.wall, cost.cpu - self._before), recorded


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
    while steps := pipe.recv():
        pipe.send(training.turn(steps))
    pipe.send(training.close())
    pipe.send(training.recorded())


def _played(match: Match, player: _Player, turns: Sequence[Cost]) -> Played:
    count = match.steps * match.rounds
    ending, recorded = player.end()
    end = Cost(ending.wall / count, ending.cpu / count)
    costs = [
        Cost(cost.wall / match.steps + end.wall, cost.cpu / match.steps + end.cpu)
        for cost in turns
    ]
    first = match.tiny + match.warm_up
    starts = range(first, first + count, match.steps)
    return Played(costs, end, [range(s, s + match.steps) for s in starts], recorded)
