from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from dynoscope.recorder import manifest
from tests.fleet.runs import write_fleet

RUNS = 500


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 500 runs."""
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "_git", lambda: None)  # two processes for each run
        write_fleet(folder, RUNS)
    return folder


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 runs."""
    folder = tmp_path_factory.mktemp("few")
    write_fleet(folder, 12)
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """Two processes of two threads each."""
    with LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client
