"""A copy has what was asked for, up to date, and outlives a store that is down."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynoscope.errors import StoreError
from dynoscope.reader import Cursor, Run, open_run
from dynoscope.remote import replica as replica_module
from dynoscope.remote.replica import Replica
from dynoscope.remote.store import Store
from dynoscope.remote.upload import Upload
from tests.dashboard.runs import WrittenRun
from tests.remote.runs import Scalars, steps
from tests.remote.stores import Proxy
from tests.remote.test_upload import Faulty

Uri = Callable[..., str]


def send(folder: Path, uri: str) -> None:
    upload = Upload(folder, Store(uri))
    upload.look(replace=True)
    upload.once()


def fetched(proxy: Proxy) -> list[str]:
    """Names of files that were asked for since the last call."""
    names = [
        line.split("?")[0].split("/", 3)[3]
        for line in proxy.requests
        if line.startswith("GET /bucket/")
    ]
    proxy.requests.clear()
    return [name for name in names if not name.endswith("run.json")]


def test_only_what_is_asked_for_and_new_is_fetched(
    tmp_path: Path, s3: Uri, proxy: Proxy
) -> None:
    written = WrittenRun(tmp_path / "run")
    written.write(5)
    written.flush()
    written.write(5)
    upload = Upload(written.path, Store(s3("run")))
    upload.look(replace=True)
    upload.once()
    fetched(proxy)
    run = open_run(s3("run"))
    assert len(run.groups()) == 10
    part, journal = "part-00000000.parquet", "journal-00000001.arrow"
    assert set(fetched(proxy)) == {f"run/groups/{part}", f"run/groups/{journal}"}
    assert len(run.groups()) == 10
    assert not fetched(proxy)
    written.write(1)
    upload.once()
    fetched(proxy)
    assert len(run.groups()) == 11
    assert set(fetched(proxy)) == {f"run/groups/{journal}"}
    again = open_run(s3("run"))  # as another process would
    assert len(again.groups()) == 11
    assert not fetched(proxy)
    written.close()


def test_the_store_is_not_asked_all_the_time(
    tmp_path: Path, s3: Uri, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_module, "INTERVAL", 1000.0)
    run = Scalars(tmp_path / "run")
    run.append(3)
    send(run.folder, s3("run"))
    opened = open_run(s3("run"))
    cursor = opened.cursor("scalars")
    assert steps(cursor.poll()) == [0, 1, 2]
    before = len(proxy.requests)
    for _ in range(20):
        assert opened.status == "running"
        assert not len(cursor.poll())
    assert len(proxy.requests) == before
    # Somebody else brings a newer manifest: what it tells of must be there too.
    run.append(2)
    run.flush()
    run.save(status="finished")
    send(run.folder, s3("run"))
    Replica(Store(s3("run"))).manifest()
    assert opened.status == "finished"
    assert steps(cursor.poll()) == [3, 4]


def test_a_run_that_is_replaced_is_read_anew(tmp_path: Path, s3: Uri) -> None:
    for rows in (3, 2):
        run = Scalars(tmp_path / f"{rows}")
        for _ in range(rows):
            run.append()
            run.flush()
        send(run.folder, s3("run"))
        opened = open_run(s3("run"))
        assert opened.scalars()["step"].tolist() == list(range(rows))
        names = sorted(path.name for path in (opened.folder / "scalars").iterdir())
        assert names == [f"part-{n:08}.parquet" for n in range(rows)]


def test_a_transfer_that_breaks_leaves_a_beginning(tmp_path: Path) -> None:
    run = Scalars(tmp_path / "run")
    uri = (tmp_path / "store").as_uri()
    run.append()
    send(run.folder, uri)
    store = Faulty(uri)
    replica = Replica(store)
    cursor = Cursor(replica.folder, "scalars", replica.table)
    assert steps(cursor.poll()) == [0]
    for _ in range(4):
        run.append()
        run.flush()
    send(run.folder, uri)
    store.fails = [True, True, False]
    assert steps(cursor.poll()) == [1]
    assert "the store is down" in replica.problem
    assert steps(cursor.poll()) == []
    assert steps(cursor.poll()) == [2, 3, 4]
    assert not replica.problem


def test_a_store_that_goes_down_leaves_what_is_here(
    tmp_path: Path, s3: Uri, proxy: Proxy
) -> None:
    run = Scalars(tmp_path / "run", writer={"host": "far", "pid": 1, "started": 0})
    run.append(3)
    send(run.folder, s3("run"))
    opened = open_run(s3("run"))
    assert opened.scalars()["step"].tolist() == [0, 1, 2]
    proxy.be("denied")
    run.append()
    assert opened.scalars()["step"].tolist() == [0, 1, 2]
    assert opened.status == "running"  # as far as anybody can tell
    assert "no permission" in opened.staleness
    with pytest.raises(StoreError, match="no permission"):
        open_run(s3("run"))
    proxy.be("well")
    send(run.folder, s3("run"))
    assert opened.scalars()["step"].tolist() == [0, 1, 2, 3]
    assert not opened.staleness


def test_a_copy_that_is_removed_is_fetched_again(tmp_path: Path) -> None:
    run = Scalars(tmp_path / "run")
    run.append(3)
    uri = (tmp_path / "store").as_uri()
    send(run.folder, uri)
    opened = open_run(uri)
    assert len(opened.scalars()) == 3
    shutil.rmtree(opened.folder.parent)
    assert len(opened.scalars()) == 3


def test_a_silent_writer_elsewhere_is_lost(tmp_path: Path) -> None:
    far = {"host": "far", "pid": 1, "started": 0}
    run = Scalars(tmp_path / "run", writer=far)
    uri = (tmp_path / "store").as_uri()
    send(run.folder, uri)
    opened = open_run(uri)
    assert opened.status == "running"
    run.save(heartbeat=time.time() - 90)
    send(run.folder, uri)
    assert opened.status == "lost"


def test_a_run_says_where_it_is(tmp_path: Path, s3: Uri) -> None:
    run = Scalars(tmp_path / "local")
    send(run.folder, s3("runs/lion"))
    opened = open_run(s3("runs/lion"))
    assert opened.path == s3("runs/lion")
    assert opened.name == "lion"
    assert repr(opened) == f"<dynoscope run {s3('runs/lion')!r}: running>"
    assert opened.folder != run.folder
    assert Run(run.folder).path == run.folder


def test_what_is_no_run_is_said(s3: Uri) -> None:
    with pytest.raises(FileNotFoundError, match=r"/nothing\?.* has no readable run"):
        open_run(s3("nothing"))
