"""Which runs are found, and what they are called."""

import shutil
from pathlib import Path

import pytest

from dynoscope import open_fleet
from dynoscope.errors import RunNotFoundError
from dynoscope.fleet.members import Member, bunches, listed, members_at
from tests.fleet.runs import names_in, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("lion", "sweep/a", "sweep/b", "sweep-2/a")):
        write_run(folder / name, seed, steps=2)
    shutil.copytree(folder / "lion", folder / "lion" / "branches" / "001")
    return folder


def names(*places: Path | str) -> list[str]:
    return [member.name for member in members_at([str(place) for place in places])]


def test_names_are_paths_below_the_place(folder: Path) -> None:
    everything = ["lion", "sweep/a", "sweep/b", "sweep-2/a"]
    assert sorted(names(folder)) == sorted(everything)
    assert sorted(names(folder / "**")) == sorted(everything)
    assert names(folder / "sweep") == ["a", "b"]
    assert names(folder / "lion") == ["lion"]
    assert names(folder / "sweep*") == ["sweep/a", "sweep/b", "sweep-2/a"]
    assert names(folder / "*" / "a") == ["sweep/a", "sweep-2/a"]
    assert names(folder / "nothing", folder / "no*thing") == []


def test_a_run_is_there_once_and_no_name_twice(folder: Path) -> None:
    assert names(folder / "lion", folder, folder / "lion") == names(folder)
    both = names(folder / "sweep" / "a", folder / "sweep-2" / "a")
    assert both == [str(folder / "sweep" / "a"), str(folder / "sweep-2" / "a")]
    assert names(folder / "lion" / "branches" / "001") == ["001"]


def test_places_are_absolute_and_sizes_those_of_the_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (member,) = members_at(["sweep/b"])
    assert member.place == str(folder / "sweep" / "b")
    files = (folder / "sweep" / "b").glob("*/*")
    assert member.size == sum(path.stat().st_size for path in files)


def test_one_place_or_several() -> None:
    assert listed("a") == listed(Path("a")) == listed(["a"]) == ["a"]
    assert listed([Path("a"), "b"]) == ["a", "b"]


def test_small_runs_are_bunched_and_large_ones_are_not() -> None:
    sizes = [1, 2, 3, 100, 4, 90, 1, 1, 1, 1]
    members = [Member(str(n), f"/{n}", size) for n, size in enumerate(sizes)]
    found = [[m.size for m in bunch] for bunch in bunches(members, 3, 10)]
    assert found == [[1, 2, 3], [100], [4], [90], [1, 1, 1], [1]]
    assert bunches([], 3) == []


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"no run in .*nowhere"):
        open_fleet(tmp_path / "nowhere")
    with pytest.raises(RunNotFoundError, match="no run in nothing"):
        open_fleet([])


def test_runs_are_looked_for_afresh(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 1, steps=1)
    fleet = open_fleet(tmp_path)
    write_run(tmp_path / "b", 2, steps=1)
    assert fleet.names == names_in(tmp_path) == ["a", "b"]
    assert repr(fleet) == "<dynoscope fleet of 2 runs>"


def test_a_password_is_shown_to_nobody() -> None:
    assert "secret" not in repr(Member("lion", "s3://key:secret@bucket/lion", 1))
