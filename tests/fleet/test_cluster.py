"""Who does the work, and what is said where nobody can."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from dynoscope import open_fleet
from dynoscope.errors import DynoscopeError
from dynoscope.fleet.cluster import Cluster
from tests.fleet.runs import names_in, write_run
from tests.remote.stores import free_port

ROOT = Path(__file__).parents[2]


def doubled(numbers: Sequence[int]) -> list[int]:
    return [2 * number for number in numbers]


def test_an_address_a_client_or_nobody(cluster: LocalCluster, client: Client) -> None:
    bunches = [[1, 2], [3], []]
    for workers in (None, client, cluster.scheduler_address):
        at_work = Cluster(workers)
        assert at_work.map(doubled, bunches) == [2, 4, 6]
        assert at_work.share(100) == (25 if workers is None else 7)
        assert at_work.share(1) == 1
        at_work.close()
    assert client.status == "running"  # it is not ours


def test_processes_of_ones_own(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / f"{seed}", seed, steps=2)
    with open_fleet(tmp_path, client=1) as fleet:
        assert fleet.summaries()["run"].tolist() == names_in(tmp_path)
        processes = fleet.map(lambda run: os.getpid())
    assert len(set(processes.values())) == 1
    assert os.getpid() not in processes.values()


@pytest.mark.parametrize("wrong", [0, -1, True, 2.5])
def test_no_such_workers(wrong: object) -> None:
    with pytest.raises(DynoscopeError, match="client="):
        Cluster(wrong)  # type: ignore[arg-type]


def test_no_scheduler_there() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "500ms"}),
        pytest.raises(DynoscopeError, match="no Dask scheduler answers at"),
    ):
        Cluster(f"tcp://127.0.0.1:{free_port()}")


def test_without_dask(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 1, steps=2)
    script = f"""
import sys
sys.modules["dask"] = sys.modules["distributed"] = None
import dynoscope
place = {str(tmp_path)!r}
fleet = dynoscope.open_fleet(place)
count = fleet.sql("SELECT count(*) FROM layers").iloc[0, 0]
print(fleet.summaries()["status"][0], count)
for ask in (lambda: fleet.dataframe("layers"), lambda: dynoscope.open_fleet(place, 2)):
    try:
        ask()
    except dynoscope.DynoscopeError as error:
        print(error)
print("torch" in sys.modules)
"""
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.splitlines()  # fmt: skip
    cure = 'needs Dask: pip install "dynoscope[fleet]"'
    assert said == [
        "finished 6",
        f"a Dask dataframe {cure}",
        f"a fleet on a cluster {cure}",
        "False",
    ]
