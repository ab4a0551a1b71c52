"""What works beside a training is told from its own threads."""

import threading
import time
from pathlib import Path

import pytest

from tests.benchmarks.clocks import Clocks, Cost

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="it needs Linux")


def _burn(seconds: float) -> None:
    """CPU time of this thread, however long that takes by the clock."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_threads_that_come_later_are_beside_also_when_they_have_ended() -> None:
    clocks = Clocks(lambda: _burn(0.001))
    start = clocks.now()
    _burn(0.02)
    thread = threading.Thread(target=_burn, args=(0.05,))
    thread.start()
    thread.join()
    cost = clocks.now() - start
    assert 0.02 <= cost.cpu < 0.05
    assert cost.beside > 0.045
    assert cost.wall > 0


def test_a_thread_that_stands_by_is_not_the_training_s() -> None:
    begin = threading.Event()

    def wait() -> None:
        begin.wait()
        _burn(0.03)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)  # it has come to wait
    clocks = Clocks(lambda: _burn(0.001))
    start = clocks.now()
    begin.set()
    thread.join()
    assert (clocks.now() - start).beside > 0.025


def test_costs_are_numbers() -> None:
    assert (Cost(3.0, 4.0, 5.0) - Cost(1.0, 2.0, 1.0)) / 2 == Cost(1.0, 1.0, 2.0)
