"""The upload thread: a failure is counted, said once, tried again; it ends in time."""

import threading
from pathlib import Path

import pytest

from dynoscope.remote.store import Store
from dynoscope.remote.uploader import LONGEST_PAUSE, Uploader, pause_after
from tests.remote.runs import Scalars
from tests.remote.stores import Proxy
from tests.remote.test_store import Uri


def test_pauses_double_are_bounded_and_differ() -> None:
    for failures in range(1, 200):
        longest = min(4.0 * 2.0**failures, LONGEST_PAUSE)
        drawn = {pause_after(failures, 4.0) for _ in range(20)}
        assert len(drawn) > 1
        assert all(longest / 2 <= pause <= longest for pause in drawn)


@pytest.fixture
def run(tmp_path: Path) -> Scalars:
    return Scalars(tmp_path / "run")


def test_what_fails_is_counted_and_said_once(
    run: Scalars, s3: Uri, proxy: Proxy
) -> None:
    said: list[str] = []
    failed = threading.Event()

    def note(problem: str) -> None:
        said.append(problem)
        failed.set()

    uploader = Uploader(run.folder, Store(s3("run")), 0.01, note)
    uploader.start()
    assert uploader.counts == {"uri": s3("run"), "failures": 0, "backlog": 0}
    proxy.be("denied")
    run.append(2)
    run.flush()
    assert failed.wait(60.0)
    assert not uploader.finish(0.5)
    (part,) = (run.folder / "scalars").iterdir()
    assert uploader.counts["backlog"] == part.stat().st_size
    assert uploader.counts["failures"] > 1
    assert len(said) == 1
    assert "no permission" in said[0]
    assert str(run.folder) in said[0]


def test_the_rest_arrives_at_the_end(run: Scalars, s3: Uri, proxy: Proxy) -> None:
    uploader = Uploader(run.folder, Store(s3("run")), 1000.0, pytest.fail)
    uploader.start()
    run.append(2)
    run.flush()
    run.save(status="finished")
    assert uploader.finish(60.0)
    assert sorted(Store(s3("run")).list()) == [
        "run.json",
        "scalars/part-00000000.parquet",
    ]


def test_a_store_that_hangs_is_left_to_itself(
    run: Scalars, s3: Uri, proxy: Proxy
) -> None:
    said: list[str] = []
    uploader = Uploader(run.folder, Store(s3("run")), 1000.0, said.append)
    uploader.start()
    proxy.be("hung")
    run.append()
    assert not uploader.finish(0.3)
    assert not uploader.reason  # for the try is not over
    proxy.be("down")  # so that it ends before the test does
    uploader._thread.join(60.0)
    assert not uploader._thread.is_alive()
    assert not said
