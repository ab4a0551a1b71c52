"""Runs in an object store: each worker fetches its own copy of what it reads."""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client
from pyarrow import fs

from dynoscope import open_fleet
from tests.fleet.runs import BROKEN, names_in
from tests.remote.stores import BUCKET, s3_server

pytestmark = pytest.mark.filterwarnings("ignore:.*:dynoscope.DynoscopeWarning")


@pytest.fixture(scope="module")
def uri(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where in a store copies of the runs are."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as port:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        store = fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}",
            scheme="http",
            allow_bucket_creation=True,
        )
        store.create_dir(BUCKET)
        fs.copy_files(
            str(few),
            f"{BUCKET}/runs",
            source_filesystem=fs.LocalFileSystem(),
            destination_filesystem=store,
        )
        yield f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:{port}&scheme=http"


@pytest.fixture
def workers(client: Client, tmp_path: Path) -> Client:
    """A cluster whose workers know the store, and have caches of their own."""
    known = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}

    def tell(place: str) -> None:
        os.environ.update(known, XDG_CACHE_HOME=f"{place}/{os.getpid()}")

    client.run(tell, str(tmp_path))
    return client


def without_paths(frame: pd.DataFrame) -> pd.DataFrame:
    """What a run says of a broken manifest names the place where it is."""
    broken = frame["status"] == "unreadable"
    return frame.assign(problems=frame["problems"].mask(broken, "broken"))


def test_a_store_says_what_a_folder_says(
    few: Path, uri: str, workers: Client, tmp_path: Path
) -> None:
    here = without_paths(open_fleet(few).summaries())
    assert here["run"].tolist() == names_in(few)
    for client in (None, workers):
        found = without_paths(open_fleet(uri, client).summaries())
        pd.testing.assert_frame_equal(found, here, check_exact=True)
    copies = [path.parent for path in tmp_path.rglob("run.json")]
    fetched = {path.name for path in copies}
    assert fetched >= {Path(n).name for n in names_in(few) if n not in BROKEN}
    assert {path.relative_to(tmp_path).parts[0] for path in copies} <= {
        str(pid) for pid in workers.run(os.getpid).values()
    }
    sql = "SELECT run, count(*) AS rows FROM layers GROUP BY run ORDER BY run"
    pd.testing.assert_frame_equal(open_fleet(uri).sql(sql), open_fleet(few).sql(sql))


def test_wildcards_and_single_runs(uri: str) -> None:
    base, _, options = uri.partition("?")
    assert open_fleet(f"{base}/spec*?{options}").names == [
        "special/damaged", "special/failed", "special/lost", "special/still",
    ]  # fmt: skip
    assert open_fleet(f"{base}/special/*?{options}").names == [
        "damaged", "failed", "lost", "still",
    ]  # fmt: skip
    assert open_fleet(f"{base}/special/lost?{options}").names == ["lost"]
    assert "s3://bucket/runs/special/lost/layers/" in open_fleet(uri).athena("layers")
    assert open_fleet([f"{base}/special?{options}", uri]).names[:2] == [
        "damaged", "failed",
    ]  # fmt: skip
