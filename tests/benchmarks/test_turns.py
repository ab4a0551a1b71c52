"""Arms stand still while others have their turn, with all that they have started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.benchmarks import family
from tests.benchmarks.training import PACES
from tests.benchmarks.turns import Match, play

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True)\\nwhile 1: pass"])
child.wait()
"""


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _until(is_so: object) -> None:
    deadline = time.monotonic() + 30
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc").exists(), reason="the suite needs Linux")
def test_a_family_stands_still_and_its_children_count() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    with parent:
        try:
            assert parent.stdout is not None
            parent.stdout.readline()
            whole = family.family(parent.pid)
            assert whole[0] == parent.pid
            assert len(whole) == 2
            _until(lambda: family.children_seconds(parent.pid) > 0.05)
            family.tell(parent.pid, signal.SIGSTOP)
            _until(lambda: {_state(pid) for pid in whole} == {"T"})
            used = family.children_seconds(parent.pid)
            family.tell(parent.pid, signal.SIGCONT)
            _until(lambda: family.children_seconds(parent.pid) > used)
        finally:
            family.tell(parent.pid, signal.SIGKILL)
    assert family.family(os.getpid())[0] == os.getpid()


@pytest.mark.skipif(not Path("/proc").exists(), reason="the suite needs Linux")
def test_arms_train_in_turns_and_say_what_was_measured() -> None:
    arm = "layers, every 10"
    match = Match("conv", {"bare": 1, arm: 2}, rounds=2, threads=1, small=True)
    played = play(match._replace(stretch={arm: 12}))
    assert list(played) == ["bare", arm]
    for its, pairs in zip(played.values(), (1, 2), strict=True):
        assert [len(turn.pairs) for turn in its.turns] == [pairs, pairs]
        for pair in its.pairs:
            for half in pair:
                assert len(half.steps) == PACES["conv"].steps
                assert min(half.cost.wall, half.cost.cpu) > 0
                assert 0 < half.optimizer < half.cost.wall
            assert set(pair.on.steps) <= set(its.on)
            assert set(pair.off.steps).isdisjoint(its.on)
        assert its.on == sorted(set(its.on))
        assert min(its.closing.wall, its.closing.cpu + its.closing.beside) > 0
    watched = [0, 1, *played[arm].on]  # two to warm up
    recorded = played[arm].recorded
    assert recorded.measured == {0, *watched[2::10]}
    assert recorded.costs.keys() >= recorded.measured
    assert played[arm].beside > 0
    assert [len(turn.stretch) for turn in played[arm].turns] == [12, 12]
    assert all(turn.beside_it > 0 for turn in played[arm].turns)
    assert set(played[arm].stretches) < set(watched)
    assert not played["bare"].recorded.measured
