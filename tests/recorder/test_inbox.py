"""What waits for the writer's thread, and for how long."""

import time

from dynoscope.measurement import ScalarEntry
from dynoscope.recorder.inbox import Inbox

ENTRY = ScalarEntry(step=0, wall_time=0.0, name="loss", fetch=lambda: 1.0)


def test_age_is_that_of_the_oldest() -> None:
    inbox = Inbox()
    assert inbox.age == 0
    inbox.log(ENTRY)
    time.sleep(0.02)
    inbox.log(ENTRY)
    assert inbox.age >= 0.02
    inbox.start()
    assert inbox.age == 0
    assert len(list(inbox.scalars())) == 2
    before = time.monotonic()
    inbox.log(ENTRY)
    assert 0 <= inbox.age <= time.monotonic() - before


def test_what_comes_while_the_rest_is_taken_out_has_an_age() -> None:
    inbox = Inbox()
    inbox.log(ENTRY)
    inbox.start()
    taken = inbox.scalars()
    next(taken)
    inbox.log(ENTRY)
    time.sleep(0.001)
    assert inbox.age > 0
