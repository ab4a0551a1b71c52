"""Schedules that are switched off count on where they were when they are on again."""

import random

import pytest

from dynoscope.schedule import Budget
from tests.benchmarks.spacing import OwnBudget, Spaced


def test_every_tenth_is_of_the_steps_that_are_on() -> None:
    due, draw, on = Spaced(10), random.Random(0), []
    for step in range(400):
        is_on = draw.random() < 0.5
        due.switch(on=is_on)
        is_due = due(step)
        assert is_on or not is_due
        if is_on:
            on.append(is_due)
    assert [own for own, is_due in enumerate(on) if is_due][:4] == [0, 2, 12, 22]


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("half", [1, 2, 9, 50])
def test_a_budget_spaces_as_if_it_had_never_been_off(half: int) -> None:
    plain, clock = Budget(0.01), _Clock()
    own, draw = OwnBudget(clock), random.Random(1)
    step, taken, expected, found = 0, 0, [], []
    costs = [draw.uniform(0.04, 0.06) for _ in range(2000)]
    while taken < 1000:
        own.switch(on=True)
        for _ in range(half):
            clock.now += 1.0
            if own(step):
                found.append(taken)
                own.spent(step, clock.now, costs[taken])
            if plain(taken):
                expected.append(taken)
                plain.spent(taken, taken + 1.0, costs[taken])
            step, taken = step + 1, taken + 1
        own.switch(on=False)
        for _ in range(half):
            clock.now += draw.uniform(0.5, 3.0)
            assert not own(step)
            step += 1
    assert found == expected
    assert len(found) < 350  # the first hundred, and about one in five


def test_switching_twice_is_switching_once() -> None:
    clock = _Clock()
    own = OwnBudget(clock)
    assert own(7)
    own.spent(7, clock.now, 0.1)
    for on in (False, False, True, True):
        clock.now += 1.0
        own.switch(on=on)
    clock.now += 5.0
    assert own(8)
    own.spent(8, clock.now, 0.2)
    # 7 s of its own, 0.2 s of them measuring: 0.15 s are to be 1 % of so many steps.
    assert own.interval == 3
