import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dynoscope.dashboard import store as store_module
from dynoscope.dashboard.store import Store
from tests.dashboard.runs import WrittenRun, columns_of

MakeRun = Callable[..., WrittenRun]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look afresh at every call."""
    monkeypatch.setattr(store_module, "PAUSE", 0.0)


def test_nothing_there_yet_then_a_run(tmp_path: Path, make_run: MakeRun) -> None:
    store = Store(tmp_path / "runs")
    store.scan()
    assert store.rows() == []
    assert store.newest() is None
    before = store.version
    make_run(tmp_path / "runs" / "deep" / "one").write(1)
    store.scan()
    assert [row["id"] for row in store.rows()] == ["deep/one"]
    assert store.version != before
    unchanged = store.version
    store.scan()
    assert store.version == unchanged


def test_a_run_itself_can_be_served(written: WrittenRun) -> None:
    store = Store(written.path)
    store.scan()
    assert store.newest() == "one"
    assert list(store.states(["one"])) == ["one"]


def test_statuses(tmp_path: Path, make_run: MakeRun) -> None:
    make_run(tmp_path / "good").end()
    make_run(tmp_path / "bad").end("failed", "ValueError: no\nmore data")
    make_run(tmp_path / "now")
    gone = make_run(tmp_path / "gone")
    gone.manifest.content["writer"].update(pid=2**22 + 1, started=1)
    gone.manifest.write()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "run.json").write_text("{}")
    store = Store(tmp_path)
    store.scan()
    rows = {row["id"]: row for row in store.rows()}
    assert {key: row["status"] for key, row in rows.items()} == {
        "good": "finished",
        "bad": "failed",
        "now": "running",
        "gone": "lost",
        "foreign": "unreadable",
    }
    assert rows["bad"]["note"] == "ValueError: no\nmore data"
    assert "not a dynoscope manifest" in rows["foreign"]["note"]
    assert "process is gone" in rows["gone"]["problems"][0]
    assert store.newest() == "now"
    assert store.states(list(rows)).keys() == rows.keys() - {"foreign"}


def test_refresh_says_whether_anything_changed(written: WrittenRun) -> None:
    store = Store(written.path.parent)
    store.scan()
    first = store.refresh(["one"])
    assert store.refresh(["one"]) == first
    written.write(1)
    second = store.refresh(["one"])
    assert second != first
    assert store.is_live(["one"])


def test_a_finished_run_is_left_alone(
    written: WrittenRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(written.path.parent)
    written.end()
    store.scan()
    store.refresh(["one"])
    assert not store.is_live(["one"])
    state = store.states(["one"])["one"]
    monkeypatch.setattr(state, "refresh", lambda: pytest.fail("was read again"))
    store.scan()
    store.refresh(["one"])


def test_the_end_of_a_run_is_read(written: WrittenRun) -> None:
    store = Store(written.path.parent)
    store.scan()
    store.refresh(["one"])
    written.write(5)
    written.end()
    store.refresh(["one"])  # still thinks that it runs
    store.scan()
    store.refresh(["one"])
    assert len(columns_of(store.states(["one"])["one"], "a.weight")[0]) == 45
    assert not store.is_live(["one"])


def test_a_run_that_was_replaced_starts_afresh(
    written: WrittenRun, make_run: MakeRun
) -> None:
    store = Store(written.path.parent)
    store.scan()
    store.refresh(["one"])
    shutil.rmtree(written.path)
    store.scan()
    assert store.rows() == []
    make_run(written.path).write(3)
    store.scan()
    store.refresh(["one"])
    assert len(columns_of(store.states(["one"])["one"], "a.weight")[0]) == 3


def test_only_so_many_runs_stay_in_memory(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOADED", 2)
    for name in "abc":
        make_run(tmp_path / name).write(2)
    store = Store(tmp_path)
    store.scan()
    first = store.states(["a"])["a"]
    store.states(["b", "c"])
    assert store.states(["a"])["a"] is not first


def test_pages_share_one_state(written: WrittenRun) -> None:
    store = Store(written.path.parent)
    store.scan()
    threads = [threading.Thread(target=store.refresh, args=(["one"],)) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(columns_of(store.states(["one"])["one"], "a.weight")[0]) == 40


def test_a_manifest_that_lacks_something_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "run.json").write_text(json.dumps({"schema_version": 1}))
    store = Store(tmp_path)
    store.scan()
    assert store.rows()[0]["status"] == "unreadable"
    assert "run.json lacks" in store.rows()[0]["note"]
