"""A run is sealed while it is written, and what goes wrong in that harms nothing."""

import os
import threading
from pathlib import Path

import pytest

from dynoscope.reader.cursor import Cursor
from dynoscope.reader.files import list_files, read_table
from dynoscope.recorder.journal import TableWriter
from dynoscope.sealing.sealer import Sealer
from tests.sealing.runs import table_rows, write


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_seals_beside_a_writer(tmp_path: Path) -> None:
    said: list[str] = []
    seals = Sealer(tmp_path)
    writer, cursor = TableWriter(tmp_path, "layers"), Cursor(tmp_path, "layers")
    seen, most = [], 0
    for step in range(150):
        writer.append(table_rows("layers", [step]))
        writer.flush()
        seals.look(said.append)
        seen += cursor.poll()["step"].to_pylist()
        most = max(most, len(list_files(tmp_path, "layers")))
    writer.append(table_rows("layers", [150]))
    writer.abandon()
    seals.finish(said.append)
    assert not said
    seen += cursor.poll()["step"].to_pylist()
    assert seen == [step for step in range(151) for _ in range(3)]
    kinds = [name.split("-")[0] for name in names_in(tmp_path / "layers")]
    assert kinds == ["journal", "segment"]  # somebody may still write the journal
    assert most < 151  # it did not wait for the end


def test_where_nothing_is_due_there_is_no_thread(tmp_path: Path) -> None:
    write(tmp_path, "layers", [[n] for n in range(7)], open_=True)
    before = threading.active_count()
    Sealer(tmp_path).look(print)
    assert threading.active_count() == before


def test_the_end_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    write(tmp_path, "layers", [[0], [1]], open_=False)
    write(tmp_path, "scalars", [[0], [1]], open_=False)
    before = names_in(tmp_path / "layers")
    Sealer(tmp_path).finish(print, seconds=0)
    assert names_in(tmp_path / "layers") == before
    Sealer(tmp_path).finish(print, seconds=60)
    assert len(names_in(tmp_path / "layers")) == 1


def test_the_end_does_not_wait_for_a_long_merge(tmp_path: Path) -> None:
    write(tmp_path, "layers", [range(5000)] * 8, open_=False)
    names = names_in(tmp_path / "layers")
    seals = Sealer(tmp_path)
    seals.look(print)
    seals.finish(print, seconds=0)
    assert names_in(tmp_path / "layers") == names
    assert not list(tmp_path.glob("*/*.tmp"))


def test_damage_is_told_once_and_the_rest_is_sealed(tmp_path: Path) -> None:
    write(tmp_path, "scalars", [[n] for n in range(30)], open_=False)
    path = tmp_path / "scalars" / "part-00000013.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = b"\x8f" * 396  # the footer is whole
    path.write_bytes(content)
    said: list[str] = []
    Sealer(tmp_path).finish(said.append, seconds=60)
    assert len(said) == 1
    assert "part-00000013.parquet" in said[0]
    assert names_in(tmp_path / "scalars") == [
        "part-00000013.parquet",
        "segment-00000000-00000012.parquet",
        "segment-00000014-00000029.parquet",
    ]
    table, problems = read_table(tmp_path, "scalars")
    assert len(problems) == 1
    assert len(table) == 29 * 3


def test_a_full_disk_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "scalars", [[n] for n in range(8)], open_=False)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    said: list[str] = []
    seals = Sealer(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        assert not seals.merge(said.append)
    assert "No space" in said[0]
    assert len(names_in(tmp_path / "scalars")) == 8
    assert seals.merge(said.append)
    assert len(names_in(tmp_path / "scalars")) == 1
