import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.dashboard.runs import WrittenRun

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one, tests that need it are skipped, not in CI."""
    chromium = shutil.which("chromium")
    if chromium is None:
        missing = "no chromium here: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield opened
        opened.close()


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
