"""All runs below a URI: found, listed by the dashboard, compared, examined."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import dynoscope
from dynoscope.cli import app
from dynoscope.dashboard import store as store_module
from dynoscope.dashboard.server import build_app
from dynoscope.dashboard.store import Store as RunList
from dynoscope.errors import StoreError
from dynoscope.remote import catalog as catalog_module
from dynoscope.remote.catalog import Catalog
from dynoscope.remote.store import Store, joined
from dynoscope.remote.upload import Upload
from tests.dashboard.runs import WrittenRun, columns_of
from tests.remote.stores import Proxy
from tests.remote.test_store import Uri


class Sent(WrittenRun):
    """A run that is written here and sent there."""

    def __init__(self, path: Path, uri: str) -> None:
        super().__init__(path)
        self._upload = Upload(path, Store(uri))
        self._upload.look(replace=True)
        self.send()

    def send(self) -> None:
        self._upload.once()


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "INTERVAL", 0.0)
    monkeypatch.setattr(catalog_module, "SHARE", 1e9)
    monkeypatch.setattr(store_module, "PAUSE", -1.0)


@pytest.fixture
def two(tmp_path: Path, s3: Uri) -> tuple[Sent, Sent]:
    uris = [joined(s3("runs"), name) for name in ("a", "deep/b")]
    one, other = (Sent(tmp_path / f"{k}", uri) for k, uri in enumerate(uris))
    for run in (one, other):
        run.write(4)
        run.end()
        run.send()
    return one, other


def test_runs_are_found(two: tuple[Sent, Sent], s3: Uri) -> None:
    store = Store(s3("runs"))
    store.put("a/branch/run.json", b"{}")  # within a run: not looked at
    store.put("notes/readme.txt", b"no run")
    store.put("broken/run.json", b"[]")
    with pytest.warns(dynoscope.DynoscopeWarning, match=r"broken.* not a dynoscope"):
        runs = dynoscope.find_runs(s3("runs"))
    assert [run.name for run in runs] == ["a", "b"]
    assert [run.path for run in runs] == [
        joined(s3("runs"), "a"),
        joined(s3("runs"), "deep/b"),
    ]
    assert [run.last_step for run in runs] == [3, 3]
    assert [run.name for run in dynoscope.find_runs(runs[0].path)] == ["a"]
    assert dynoscope.find_runs(s3("nothing")) == []


def test_manifests_are_fetched_when_they_have_changed(
    two: tuple[Sent, Sent], s3: Uri, proxy: Proxy
) -> None:
    catalog = Catalog(s3("runs"))
    before = len(proxy.requests)
    assert list(catalog.look()) == ["a", "deep/b"]
    assert len(proxy.requests) == before + 1  # one listing
    two[1].manifest.content["problems"] = ["something new"]
    two[1].manifest.write()
    two[1].send()
    proxy.requests.clear()
    folder = catalog.look()["deep/b"].folder
    assert json.loads((folder / "run.json").read_text())["problems"]
    assert not [line for line in proxy.requests if "/a/run.json" in line]


def test_the_dashboard_follows(tmp_path: Path, s3: Uri, proxy: Proxy) -> None:
    uri = s3("runs")
    runs = RunList(uri)
    runs.scan()
    assert runs.rows() == []
    run = Sent(tmp_path / "local", joined(uri, "one"))
    run.write(3)
    run.send()
    runs.scan()
    assert [(row["id"], row["status"]) for row in runs.rows()] == [("one", "running")]
    runs.refresh(["one"])
    state = runs.states(["one"])["one"]
    assert columns_of(state, "a.weight")[0].tolist() == [0, 1, 2]
    run.write(2)
    run.end()
    run.send()
    runs.scan()
    runs.refresh(["one"])
    assert runs.rows()[0]["status"] == "finished"
    assert columns_of(state, "a.weight")[0].tolist() == [0, 1, 2, 3, 4]
    assert not runs.is_live(["one"])
    proxy.be("denied")
    runs.scan()
    assert runs.rows()[0]["id"] == "one"  # as it was


def test_a_store_that_cannot_be_read_is_said_at_the_start(s3: Uri) -> None:
    missing = s3("runs", bucket="nowhere")
    with pytest.raises(StoreError, match="no such bucket"):
        build_app(missing)
    done = CliRunner().invoke(app, ["dash", missing, "--no-browser"])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"dynoscope: {missing}: no such bucket")


def test_the_command_line_takes_uris(
    two: tuple[Sent, Sent], s3: Uri, tmp_path: Path
) -> None:
    a, b = joined(s3("runs"), "a"), joined(s3("runs"), "deep/b")
    compared = CliRunner().invoke(app, ["diff", a, b, "--json"])
    assert compared.exit_code == 0
    assert json.loads(compared.stdout)["a"]["path"] == a
    examined = CliRunner().invoke(app, ["findings", a, "--json"])
    assert examined.exit_code == 0
    pushed = CliRunner().invoke(app, ["push", str(two[0].path), s3("copy")])
    assert pushed.exit_code == 0
    assert s3("copy") in pushed.stdout
    assert dynoscope.open_run(s3("copy")).last_step == 3
