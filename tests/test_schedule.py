"""Which steps are measured."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynoscope.errors import ScheduleError
from dynoscope.schedule import FIRST, LONGEST, Budget


def run(
    budget: Budget, steps: int, pace: float, cost: float, *, pauses: bool = False
) -> tuple[list[int], float, float]:
    """Measured steps of a training; the time it took without them, and they took."""
    now = plain = spent = 0.0
    measured = []
    for step in range(steps):
        is_due = budget(step)
        plain += pace
        now += pace
        if pauses and step % 250 == 249:
            now += 1000 * pace  # an evaluation, which is time of the training, too
            plain += 1000 * pace
        if is_due:
            now += cost
            spent += cost
            budget.spent(step, now, cost)
            measured.append(step)
    return measured, plain, spent


@given(
    share=st.floats(0.001, 0.5),
    pace=st.floats(1e-4, 10.0),
    relative=st.floats(0.0, 5.0),
    pauses=st.booleans(),
)
def test_the_share_is_kept(
    share: float, pace: float, relative: float, pauses: bool
) -> None:
    cost = relative * pace
    steps = FIRST + 20 * int(relative / share + 1)
    measured, plain, spent = run(Budget(share), steps, pace, cost, pauses=pauses)
    assert measured[: min(FIRST, steps)] == list(range(FIRST))
    later = len(measured) - FIRST
    allowed = share * pace * (steps - FIRST) / max(cost, 1e-300)
    if not pauses:
        assert later <= allowed + 2
    assert later >= min(allowed, steps - FIRST) / 2 - 2  # nor is it left unused
    assert spent <= FIRST * cost + share * plain + 2 * cost


def test_it_follows_the_cost() -> None:
    budget = Budget(0.01)
    dear = run(budget, 2000, 1.0, 1.0)[0]
    gaps = {b - a for a, b in itertools.pairwise(dear[-5:])}
    assert gaps == {100}
    cheap: list[int] = []
    for step in range(2000, 4000):
        if budget(step):
            budget.spent(step, 2000.0 + step * 1.001, 0.001)
            cheap.append(step)
    assert cheap[-1] - cheap[-2] == 1


def test_it_never_lets_more_than_so_many_steps_go_by() -> None:
    measured, _, _ = run(Budget(1e-6), 3 * LONGEST, 1.0, 1.0)
    assert max(b - a for a, b in itertools.pairwise(measured)) == LONGEST


def test_a_resumed_run_begins_with_a_hundred_steps() -> None:
    budget = Budget(0.01)
    measured = []
    for step in range(5000, 5300):
        if budget(step):
            budget.spent(step, float(step), 1.0)
            measured.append(step)
    assert measured[:FIRST] == list(range(5000, 5100))
    assert len(measured) < FIRST + 5


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "1%", True, None])
def test_a_share_that_makes_no_sense_is_said(share: Any) -> None:
    with pytest.raises(ScheduleError, match="budget="):
        Budget(share)


def test_what_is_measured_before_its_time_puts_off_the_next() -> None:
    jumps = {320, 330, 340}
    found = []
    for jumped in (set(), jumps):
        budget, measured = Budget(0.01), []
        for step in range(2000):
            if budget(step) or step in jumped:
                budget.spent(step, 2.0 * step, 1.0)
                measured.append(step)
        found.append(measured)
    assert jumps <= set(found[1])
    assert found[1][found[1].index(340) + 1] > 500
    assert len(found[1]) <= len(found[0]) + 1


def test_an_agreed_interval_counts_more_than_ones_own() -> None:
    budget = Budget(0.5)
    asked = []

    def agree() -> int:
        asked.append(step)
        return 7

    measured = []
    for step in range(FIRST + 30):
        if budget(step):
            budget.spent(step, float(step), 0.1, agree)
            measured.append(step)
    assert measured[FIRST - 1 :] == [99, 106, 113, 120, 127]
    assert asked == [99, 106, 113, 120, 127]
