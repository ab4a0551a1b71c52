"""The estimator finds costs that are known, and knows how far off it may be."""

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.measurement import FloatArray
from dynoscope.recorder.journal import PART_SECONDS
from tests.benchmarks.clocks import Cost
from tests.benchmarks.overhead import compared, own_cost
from tests.benchmarks.ratios import (
    Kind,
    as_figure,
    as_it_was,
    estimated,
    kind_of,
    long_training,
    mean,
)
from tests.benchmarks.training import Half, Pair, Recorded, Turn
from tests.benchmarks.turns import Played

MEASURED, IDLE = Kind(1, 0), Kind(0, 0)
ARM = "+ neurons, every step"


def _ratios(count: int, cost: float, draw: random.Random) -> list[float]:
    """On by off: noise of some percent, and hiccups of the machine in some halves."""

    def half() -> float:
        hiccup = draw.expovariate(3.0) if draw.random() < 0.08 else 0.0
        return math.exp(draw.gauss(0, 0.02)) + hiccup

    return [cost * half() / half() for _ in range(count)]


def _error(estimate: FloatArray) -> float:
    error = as_figure("", "", estimate, 1).error
    assert error is not None
    return error


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), cost=st.floats(1.0, 6.0))
def test_a_known_cost_is_found_within_its_error(seed: int, cost: float) -> None:
    kinds = [MEASURED] * 60
    found = estimated(_ratios(60, cost, random.Random(seed)), kinds, {MEASURED: 1.0})
    assert abs(found[0] - cost) < 6 * _error(found)
    assert 0.002 * cost < _error(found) < 0.012 * cost


def test_the_error_is_how_estimates_scatter() -> None:
    draw, shares = random.Random(0), {MEASURED: 1.0}
    found = [
        estimated(_ratios(40, 1.02, draw), [MEASURED] * 40, shares) for _ in range(100)
    ]
    scatter = statistics.stdev(float(each[0]) for each in found)
    errors = [_error(each) for each in found]
    assert statistics.mean(errors) == pytest.approx(scatter, rel=0.3)
    near = [abs(float(e[0]) - 1.02) < s for e, s in zip(found, errors, strict=True)]
    assert 0.5 < statistics.mean(near) < 0.85  # 0.68 of a normal distribution
    middle = statistics.mean(float(each[0]) for each in found)
    assert middle == pytest.approx(1.02, abs=4 * scatter / 10)


def test_what_comes_up_once_has_the_error_of_all() -> None:
    ratios = [*_ratios(30, 1.0, random.Random(1)), 1.5]
    found = estimated(ratios, [IDLE] * 30 + [MEASURED], {MEASURED: 1.0})
    assert found[0] == pytest.approx(1.5)
    assert _error(found) > 0.02


def test_a_single_pair_is_no_error_of_the_program_s() -> None:
    found = estimated([1.5], [IDLE], {IDLE: 1.0})
    assert found[0] == pytest.approx(1.5)


@pytest.mark.parametrize(("interval", "steps"), [(100, 2), (10, 2), (100, 20)])
def test_shares_of_a_long_training_are_its_schedule_s(
    interval: int, steps: int
) -> None:
    shares = long_training(interval, False, steps)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[MEASURED] == pytest.approx(steps / interval, rel=0.1)


def test_histograms_are_rarer_than_measurements() -> None:
    shares = long_training(1, True, 2)
    assert {kind.measured for kind in shares} == {2}
    per_step = sum(share * kind.counted for kind, share in shares.items()) / 2
    assert 0.03 < per_step < 0.06  # about 45 of 1,000 steps


def test_rare_halves_count_for_what_they_are_of_a_long_training() -> None:
    draw = random.Random(0)
    of = [MEASURED] * 3 + [IDLE] * 27
    ratios = [(1.5 if kind.measured else 1.0) * draw.uniform(0.99, 1.01) for kind in of]
    shares = long_training(100, False, 2)
    found = estimated(ratios, of, shares)
    assert found[0] == pytest.approx(1 + 0.5 * shares[MEASURED], abs=0.005)


def test_what_did_not_come_up_is_left_out() -> None:
    found = estimated([1.0, 1.0], [IDLE, IDLE], {MEASURED: 1.0})
    assert found[0] == 1
    assert as_it_was([IDLE, MEASURED, IDLE]) == {IDLE: 2 / 3, MEASURED: 1 / 3}


def test_a_mean_scatters_as_its_parts_do() -> None:
    parts = np.random.default_rng(0).exponential(2.0, 400)
    found = mean(parts.tolist(), 2.5)
    assert found[0] == 2.5
    assert _error(found) == pytest.approx(parts.std() / 20, rel=0.1)


def _played(pairs: int, seed: int = 0) -> Played:
    """A step of 100 ms by the clock and 180 ms of CPU, 2 % more of either when on.

    By the clock, all of that is in the optimizer's part, of 10 ms. Beside, another
    thread takes 1 ms for each step that is on, half of it while others are off; a child
    1 ms more. The run says that it took 2.4 ms.
    """
    draw = random.Random(seed)
    made = []
    for index in range(pairs):
        drift = draw.uniform(0.8, 1.3)
        on, off = (
            Cost(0.1 * more * x, 0.18 * more * x, 0.0005)
            for more in (1.02, 1.0)
            for x in [drift * math.exp(draw.gauss(0, 0.01))]
        )
        start = 4 * index
        optimizer = [
            0.01 * drift * math.exp(draw.gauss(0, 0.01)) + more
            for more in (on.wall - on.wall / 1.02, 0.0)
        ]
        made.append(
            Pair(
                Half(on, range(start, start + 2), optimizer[0]),
                Half(off, range(start + 2, start), optimizer[1]),
            )
        )
    steps = [step for pair in made for step in pair.on.steps]
    turn = Turn(made, steps, 0.0008 * len(steps), copies=[0.0005])
    recorded = Recorded(frozenset(steps), frozenset(), dict.fromkeys(steps, 0.0024))
    after, children = 0.0002 * len(steps), 0.001 * len(steps)
    return Played([turn], after, children, Cost(0.05, 0.0, 0.02), recorded)


def test_costs_beside_the_training_are_added() -> None:
    arms = {"bare": _played(10), ARM: _played(200), "wandb.watch": _played(200)}
    found = {(f.case, f.what): f for f in compared("conv", arms)}
    step = 0.1 * 1.05  # the drift's middle
    for what, beside in (
        ("wall ratio", 0.002 / step),
        ("CPU ratio", 0.002 / step / 1.8),
    ):
        figure = found[f"conv, {ARM}", what]
        assert figure.error is not None
        assert 0.0005 < figure.error < 0.002
        assert figure.value == pytest.approx(1.02 + beside, abs=5 * figure.error)
        assert figure.low < figure.value < figure.high
    other = found["conv, wandb.watch", "wall ratio"]
    assert other.value == pytest.approx(1.02, abs=0.005)  # without what was beside
    closing = found[f"conv, {ARM}", "closing, CPU"]
    assert closing.value == pytest.approx(20)
    assert closing.unit == "ms"
    assert ("conv, bare", "added wall time") not in found


def test_the_own_account_is_held_against_what_was_added() -> None:
    its = _played(400)
    found = {f.what: f for f in own_cost("conv", ARM, its)}
    added, most = 0.02 * 0.105 + 0.002, 0.1
    for what in ("added wall time", "time added to the optimizer's step"):
        figure = found[f"own account by {what}"]
        assert figure.error is not None
        assert 0 < figure.error < most
        drift = 0.015  # of its middle, by which steps are drawn
        off = 4 * figure.error + drift
        assert figure.value == pytest.approx(0.0024 / added, abs=off)
        most = figure.error / 3  # the second is surer by far
    rest = found["all but the optimizer's step, wall ratio"]
    assert rest.error is not None
    assert rest.value == pytest.approx(1, abs=4 * rest.error)


def test_stretches_say_what_threads_take_where_there_are_any() -> None:
    its = _played(10)
    assert its.beside == pytest.approx(0.002)
    turn = its.turns[0]._replace(stretch=range(40, 50), beside_it=0.004)
    stretched = its._replace(turns=[turn])
    assert stretched.steadily == pytest.approx(0.0004 + 0.001)
    assert stretched.beside == pytest.approx(stretched.steadily)
    late = its._replace(turns=[turn._replace(overdue=0.6)])
    step = statistics.median(pair.on.cost.wall for pair in its.pairs)
    assert late.beside == pytest.approx(late.steadily + 0.6 * step / PART_SECONDS)
    costs = dict.fromkeys(range(40, 50), 0.0048)
    recorded = its.recorded._replace(costs=costs)
    found = own_cost("conv", ARM, stretched._replace(recorded=recorded))
    step = found[0].value / 0.0048
    assert 1 / step == pytest.approx(0.105, rel=0.2)  # of the stretch, not of the pairs


def test_kinds_are_of_the_timed_steps_that_were_on() -> None:
    halves = [Half(Cost(1, 1), range(at, at + 3), 0.1) for at in (4, 7)]
    recorded = Recorded(frozenset({3, 4, 6, 8}), frozenset({6, 9}))
    assert kind_of(Pair(halves[0], halves[1]), recorded) == Kind(2, 1)
