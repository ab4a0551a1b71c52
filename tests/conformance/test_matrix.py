"""The README shows the matrix that these tests fill."""

import itertools
from pathlib import Path

from tests.conformance.matrix import CHECKS, render
from tests.conformance.ranks import DEALT
from tests.conformance.test_loops import TRAININGS

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_shows_every_loop_and_check() -> None:
    loops = [*TRAININGS, *DEALT]
    cells = dict.fromkeys(itertools.product(loops, CHECKS), "yes")
    assert "\n".join(render(cells, loops)) in README.read_text(encoding="utf-8")
