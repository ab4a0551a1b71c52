"""`dynoscope push`: a run that lies here goes there, and replaces nothing unasked."""

from pathlib import Path

import pytest

import dynoscope
from dynoscope.errors import DynoscopeError, RunExistsError, RunNotFoundError
from dynoscope.remote.push import push
from tests.remote.runs import Scalars
from tests.remote.stores import Proxy
from tests.remote.test_store import Uri


@pytest.fixture
def run(tmp_path: Path) -> Scalars:
    run = Scalars(tmp_path / "run", created=1.0)
    run.append(3)
    run.flush()
    run.save(status="finished")
    return run


def test_a_run_is_pushed_through_a_shaky_line(
    run: Scalars, s3: Uri, proxy: Proxy
) -> None:
    proxy.be("shaky")
    said: list[str] = []
    assert push(run.folder, s3("run"), say=said.append) == s3("run")
    proxy.be("well")
    opened = dynoscope.open_run(s3("run"))
    assert opened.status == "finished"
    assert opened.scalars()["step"].tolist() == [0, 1, 2]
    assert run.folder.is_dir()  # it is no spool


def test_another_run_is_not_replaced_unasked(run: Scalars, tmp_path: Path) -> None:
    uri = (tmp_path / "store").as_uri()
    other = Scalars(tmp_path / "other", created=2.0, status="finished")
    for _ in range(2):
        other.append()
        other.flush()
    push(other.folder, uri)
    push(other.folder, uri)  # once more is no harm
    with pytest.raises(RunExistsError, match="holds something else"):
        push(run.folder, uri)
    assert dynoscope.open_run(uri).manifest["created"] == 2.0
    push(run.folder, uri, overwrite=True)
    opened = dynoscope.open_run(uri)
    assert opened.manifest["created"] == 1.0
    assert opened.scalars()["step"].tolist() == [0, 1, 2]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(RunExistsError, match="holds something else"):
        push(run.folder, (tmp_path / "mine").as_uri())


def test_what_cannot_be_pushed_is_said(run: Scalars, tmp_path: Path) -> None:
    uri = (tmp_path / "store").as_uri()
    with pytest.raises(RunNotFoundError, match="holds no run"):
        push(tmp_path, uri)
    run.save(status="running")
    with pytest.raises(DynoscopeError, match="is being written"):
        push(run.folder, uri)
