from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.dashboard.runs import WrittenRun


@pytest.fixture
def written(tmp_path: Path) -> Iterator[WrittenRun]:
    """A run of 40 steps, half of them in a part, half in a journal."""
    run = WrittenRun(tmp_path / "runs" / "one")
    run.write(20)
    run.flush()
    run.write(20)
    yield run
    run.close()


@pytest.fixture
def make_run() -> Iterator[Callable[..., WrittenRun]]:
    """Makes runs: `make_run(path, **options)`."""
    made: list[WrittenRun] = []

    def make(path: Path, **options: bool) -> WrittenRun:
        made.append(WrittenRun(path, **options))
        return made[-1]

    yield make
    for run in made:
        run.close()
