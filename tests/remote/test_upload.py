"""Whenever a reader looks, it sees every row once and no gap; nothing is lost."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dynoscope.errors import RunNotFoundError, StoreError
from dynoscope.reader import Cursor
from dynoscope.reader.files import read_table
from dynoscope.reader.manifest import read_manifest
from dynoscope.remote import replica
from dynoscope.remote.replica import Replica
from dynoscope.remote.store import Store
from dynoscope.remote.upload import Upload
from tests.remote.runs import Scalars, steps


class Faulty(Store):
    """A store that calls back around each transfer, and fails at some of them."""

    def __init__(self, uri: str, around: Callable[[], None] = lambda: None) -> None:
        super().__init__(uri)
        self.fails: list[bool] = []
        self._around = around

    def put(self, name: str, content: bytes | Path) -> None:
        with self._step():
            super().put(name, content)

    def delete(self, name: str) -> None:
        with self._step():
            super().delete(name)

    def fetch(self, name: str, target: Path) -> None:
        with self._step():
            super().fetch(name, target)

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        self._around()
        if self.fails and self.fails.pop():
            raise StoreError("the store is down")
        yield
        self._around()


class Follower:
    """A reader that follows a run by its URI, with a cursor and by reading it all."""

    def __init__(self, uri: str, fails: list[bool]) -> None:
        self.store = Faulty(uri)
        self._replica = Replica(self.store)
        self._replica.manifest()  # the store was there once
        self.store.fails = fails
        self._folder = self._replica.folder
        self._cursor = Cursor(self._folder, "scalars", self._replica.table)
        self.seen: list[int] = []

    def look(self) -> None:
        """All that is there by now is a beginning of the run, each row once."""
        self.seen += steps(self._cursor.poll())
        assert self.seen == list(range(len(self.seen)))
        table, problems = read_table(self._folder, "scalars")
        assert steps(table) == self.seen
        assert not problems
        with contextlib.suppress(RunNotFoundError):
            # what the manifest tells of has arrived
            assert read_manifest(self._folder)["rows"] <= len(self.seen)


@pytest.mark.parametrize("seed", range(6))
def test_any_moment_is_a_good_one_to_look(seed: int, tmp_path: Path) -> None:
    luck = random.Random(seed)
    uri = (tmp_path / "store").as_uri()
    run = Scalars(tmp_path / "local")
    faults = [luck.random() < 0.5 for _ in range(100)]
    is_over = False
    eager, lazy = Follower(uri, []), Follower(uri, faults)

    def write() -> None:
        if is_over:
            return
        whats = ["append", "append", "save", "flush", "crash", "seal"]
        getattr(run, luck.choice(whats))()

    def while_sending() -> None:
        eager.look()
        if luck.random() < 0.1:
            lazy.look()
        if luck.random() < 0.4:
            write()

    store = Faulty(uri, while_sending)
    upload = Upload(run.folder, store)
    upload.look(replace=True)
    store.fails = [luck.random() < 0.1 for _ in range(100)]
    for _ in range(40):
        write()
        if luck.random() < 0.4:
            with contextlib.suppress(StoreError):
                upload.once()
    is_over = True
    run.close()
    run.save()
    store.fails = lazy.store.fails = []
    upload.once()
    eager.look()
    lazy.look()
    assert len(eager.seen) == len(lazy.seen) == run.count
    assert upload.backlog() == 0


@pytest.fixture
def run(tmp_path: Path) -> Scalars:
    return Scalars(tmp_path / "local")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store((tmp_path / "store").as_uri())


def test_a_part_goes_up_once_and_its_journal_goes(run: Scalars, store: Store) -> None:
    upload = Upload(run.folder, store)
    upload.look(replace=True)
    run.append()
    upload.once()
    assert sorted(store.list()) == ["run.json", "scalars/journal-00000000.arrow"]
    run.flush()
    assert upload.backlog() > 0
    upload.once()
    assert sorted(store.list()) == ["run.json", "scalars/part-00000000.parquet"]
    part = store.list()["scalars/part-00000000.parquet"]
    run.append()
    upload.once()
    assert store.list()["scalars/part-00000000.parquet"] == part
    assert upload.backlog() == 0


def test_only_what_is_ours_and_not_in_the_folder_is_replaced(
    run: Scalars, store: Store
) -> None:
    for name in ("notes.txt", "layers/notes.txt", "deep/layers/part-00000000.parquet"):
        store.put(name, b"not ours")
    theirs = set(store.list())
    for name in ("layers/part-00000007.parquet", "scalars/journal-00000003.arrow"):
        store.put(name, b"of another run")
    upload = Upload(run.folder, store)
    upload.look(replace=True)
    upload.once()
    assert set(store.list()) == {*theirs, "run.json"}


def test_what_vanishes_from_the_folder_stays_in_the_store(
    run: Scalars, store: Store
) -> None:
    upload = Upload(run.folder, store)
    upload.look(replace=True)
    for _ in range(2):
        run.append()
        run.flush()
    upload.once()
    before = store.list()
    (run.folder / "scalars" / "part-00000000.parquet").unlink()
    upload.once()
    assert store.list() == before
    (run.folder / "run.json").unlink()
    with pytest.raises(RunNotFoundError, match="holds no run"):
        upload.once()
    assert store.list() == before


def test_what_was_fetched_is_not_sent_again(
    run: Scalars, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append(3)
    run.flush()
    first = Upload(run.folder, store)
    first.look(replace=True)
    first.once()
    monkeypatch.setattr(replica, "INTERVAL", 0.0)
    copy = Replica(store)
    copy.table("scalars")
    second = Upload(copy.folder, store)
    assert second.backlog() > 0
    second.look(replace=True)
    assert second.backlog() == 0
