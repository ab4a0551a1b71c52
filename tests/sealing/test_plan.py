"""Which files are merged: few are left, and no row is rewritten often."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.schema.folder import (
    TableFile,
    current_files,
    journal_name,
    part_name,
    segment_name,
)
from dynoscope.sealing.plan import FAN, FULL, WORTH, Sized, all_due, due


def part(number: int, size: int | None) -> Sized:
    return Sized(TableFile(number, True, part_name(number), number), size)


def merged(files: list[Sized], group: list[TableFile]) -> list[Sized]:
    """What a folder holds once a group is merged; the group is consecutive."""
    at = [each.file for each in files].index(group[0])
    gone = files[at : at + len(group)]
    assert [each.file for each in gone] == group
    first, last = group[0].number, group[-1].last
    file = TableFile(first, True, segment_name(first, last), last)
    size = sum(each.size or 0 for each in gone)
    return [*files[:at], Sized(file, size), *files[at + len(group) :]]


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, FULL // 3), count=st.integers(1, 400))
def test_a_growing_run_has_few_files_and_rewrites_little(size: int, count: int) -> None:
    files: list[Sized] = []
    rewritten = 0
    for number in range(count):
        files.append(part(number, size))
        while group := due(files):
            at = [each.file for each in files].index(group[0])
            moved = sum(each.size or 0 for each in files[at : at + len(group)])
            assert moved < FULL + size  # so much is sorted in memory
            rewritten += moved
            files = merged(files, group)
    tiers = 1 + math.floor(math.log(max(count, 2), FAN))
    small = [each for each in files if (each.size or 0) < FULL]
    assert len(small) <= tiers * (FAN - 1)
    assert len(files) - len(small) <= size * count // FULL
    assert rewritten <= (tiers + 1) * size * count


def test_what_cannot_be_read_stays_where_it_is() -> None:
    files = [part(n, 1000) for n in range(20)]
    files[9] = part(9, None)
    group = due(files)
    assert [file.number for file in group] == list(range(10, 20))
    assert [[file.number for file in each] for each in all_due(files)] == [
        list(range(9)),
        list(range(10, 20)),
    ]


@pytest.mark.parametrize(
    ("size", "is_due"), [(WORTH - 1, False), (WORTH, True), (3 * FULL, True)]
)
def test_a_part_alone_is_sorted_if_it_is_worth_it(size: int, is_due: bool) -> None:
    assert bool(all_due([part(0, size)])) == is_due


def test_all_is_done_once() -> None:
    files = [part(n, FULL // 3 + 1) for n in range(10)]
    while groups := all_due(files):
        files = merged(files, groups[0])
    spans = [(each.file.number, each.file.last) for each in files]
    assert spans == [(0, 2), (3, 5), (6, 8), (9, 9)]
    assert all(each.file.is_segment for each in files)
    assert not due(files)


def test_a_journal_that_was_left_behind_is_merged() -> None:
    journal = Sized(TableFile(0, False, journal_name(0), 0), 10)
    assert all_due([journal]) == [[journal.file]]


@settings(deadline=None)
@given(st.data())
def test_every_number_is_read_from_one_file(data: st.DataObject) -> None:
    """Whatever lies around: journals beside parts beside segments that cover them."""
    names, numbers = set(), range(24)
    for number in numbers:
        names |= set(data.draw(st.sampled_from([
            [journal_name(number)], [part_name(number)],
            [journal_name(number), part_name(number)],
        ])))  # fmt: skip
    width = 1
    while width < len(numbers):  # nested, as merging makes them
        width *= data.draw(st.integers(2, 4))
        for first in range(0, len(numbers) - width + 1, width):
            if data.draw(st.booleans()):
                names.add(segment_name(first, first + width - 1))
    files = current_files(names)
    covered = [n for file in files for n in range(file.number, file.last + 1)]
    assert covered == list(numbers)
    for file in files:
        wider = {n for n in names if n.startswith("segment")} - {file.name}
        spans = [tuple(map(int, n[8:-8].split("-"))) for n in wider]
        assert not any(a <= file.number and file.last <= b for a, b in spans)
