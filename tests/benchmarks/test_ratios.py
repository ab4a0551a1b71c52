"""Ratios of trainings in which little is measured are those of long ones."""

import random

import pytest

from tests.benchmarks.ratios import Kind, against, as_it_was, by_round, long_training
from tests.benchmarks.training import Cost

MEASURED, IDLE = Kind(True, False), Kind(False, False)


@pytest.mark.parametrize(("interval", "steps"), [(100, 2), (10, 2), (100, 20)])
def test_shares_of_a_long_training_are_its_schedule_s(
    interval: int, steps: int
) -> None:
    shares = long_training(interval, False, steps)
    assert sum(shares.values()) == pytest.approx(1)
    first = steps / 1000  # the turn of the very first step, which is measured, too
    assert shares[MEASURED] == pytest.approx(steps / interval + first)


def test_histograms_are_rarer_than_measurements() -> None:
    shares = long_training(1, True, 2)
    assert shares.keys() == {MEASURED, Kind(True, True)}
    assert 0.05 < shares[Kind(True, True)] < 0.1  # about 45 of 1,000 steps


def test_rare_turns_count_for_what_they_are_of_a_long_training() -> None:
    draw = random.Random(0)
    of = [MEASURED] * 3 + [IDLE] * 27
    ratios = [(1.5 if kind.measured else 1.0) * draw.uniform(0.99, 1.01) for kind in of]
    found = against("case", "wall", ratios, of, long_training(100, False, 2))
    share = long_training(100, False, 2)[MEASURED]
    assert found.value == pytest.approx(1 + 0.5 * share, abs=0.005)
    assert found.low < found.value < found.high
    assert found.times == 30


def test_what_did_not_come_up_is_left_out() -> None:
    found = against("case", "wall", [1.0, 1.0], [IDLE, IDLE], {MEASURED: 1.0})
    assert found.value == 1
    assert as_it_was([IDLE, MEASURED, IDLE]) == {IDLE: 2 / 3, MEASURED: 1 / 3}


def test_ratios_are_to_the_same_round() -> None:
    pairs = by_round([Cost(2, 3), Cost(8, 9)], [Cost(1, 1), Cost(4, 3)])
    assert pairs == [Cost(2, 3), Cost(2, 3)]
