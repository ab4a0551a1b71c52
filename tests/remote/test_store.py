"""Objects go up and come down whole; what is wrong is said with its cure."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dynoscope.errors import StoreError
from dynoscope.remote.store import Store
from tests.remote.stores import Proxy

Uri = Callable[..., str]
ACTS: list[Callable[[Store], object]] = [
    lambda store: store.list(),
    lambda store: store.put("a", b"a"),
]


@pytest.fixture(params=["s3", "file"])
def store(request: pytest.FixtureRequest, s3: Uri, tmp_path: Path) -> Store:
    uri = s3("a run/x") if request.param == "s3" else (tmp_path / "s").as_uri()
    return Store(uri.replace(" ", "%20"))


def test_objects_go_up_and_come_down(store: Store, tmp_path: Path) -> None:
    assert store.list() == {}
    content = os.urandom(17 << 20)  # more than is on its way at once
    (tmp_path / "big").write_bytes(content)
    store.put("layers/big", tmp_path / "big")
    store.put("run.json", b"{}")
    store.put("run.json", b"[1]")
    store.put("empty", b"")
    sizes = {name: listed.size for name, listed in store.list().items()}
    assert sizes == {"layers/big": 17 << 20, "run.json": 3, "empty": 0}
    assert store.get("run.json") == b"[1]"
    store.fetch("layers/big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert list(store.below("layers").list()) == ["big"]
    store.delete("layers/big")
    store.delete("layers/big")
    assert sorted(store.list()) == ["empty", "run.json"]
    with pytest.raises(FileNotFoundError):
        store.get("layers/big")


def test_what_is_wrong_is_said(s3: Uri, proxy: Proxy) -> None:
    missing = s3("x", bucket="nowhere")
    for act in ACTS:
        with pytest.raises(StoreError, match="no such bucket; create it") as caught:
            act(Store(missing))
        assert str(caught.value).startswith(missing)
        assert caught.value.cause == "no such bucket"
    proxy.be("denied")
    for act in ACTS:
        with pytest.raises(StoreError, match="no permission; check the credentials"):
            act(Store(s3("x")))
    proxy.be("busy")
    for act in ACTS:
        with pytest.raises(StoreError, match="unreachable; check the network"):
            act(Store(s3("x")))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("s3://", "names no bucket"),
        ("s4://bucket/run", "Unrecognized filesystem type"),
        ("s3://bucket/run?colour=red", "colour"),
        ("s3://bucket/a run", "Cannot parse"),
    ],
)
def test_a_uri_that_makes_no_sense_is_said(uri: str, why: str) -> None:
    with pytest.raises(StoreError, match=why):
        Store(uri)


def test_a_password_is_never_said(s3: Uri) -> None:
    uri = s3("x", bucket="key:a%2Fsecret@nowhere")
    with pytest.raises(StoreError) as caught:
        Store(uri).list()
    assert "s3://key:***@nowhere" in str(caught.value)
    with pytest.raises(StoreError) as caught:
        Store(uri + "&colour=red")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError) as caught:
        Store(uri.replace("/x?", "/a b?"))
    assert "secret" not in str(caught.value)
