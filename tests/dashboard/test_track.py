"""A track against a plain recomputation from all rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from dynoscope import open_run
from dynoscope.dashboard.track import Steps, Track
from dynoscope.recorder.journal import TableWriter
from dynoscope.schema.arrow import arrow_schema
from dynoscope.sealing import compact
from tests.dashboard.runs import WrittenRun


class Logged:
    """Rows of `scalars`, written in helpings."""

    def __init__(self, path: Path, name: str = "loss") -> None:
        self.run = WrittenRun(path)
        self.path, self._name = self.run.path, name
        self._writer = TableWriter(self.path, "scalars")

    def write(self, steps: ArrayLike, values: ArrayLike) -> None:
        columns = {
            "step": np.asarray(steps), "wall_time": np.zeros(np.size(steps)),
            "name": [self._name] * np.size(steps), "value": np.asarray(values),
        }  # fmt: skip
        schema = arrow_schema("scalars")
        self._writer.append(
            [pa.array(columns[field.name]).cast(field.type) for field in schema]
        )

    def flush(self) -> None:
        self._writer.flush()

    def track(self, points: int, window: Steps | None = None) -> Track:
        run = open_run(self.path)
        names = ["loss"]
        return Track(run, "scalars", ["value"], names, points=points, window=window)

    def close(self) -> None:
        self._writer.abandon()


def check(track: Track, steps: np.ndarray, values: np.ndarray, points: int) -> None:
    """Each bucket has the extremes and the mean of its rows, and no row is missing."""
    assert len(track) <= points
    found = track.buckets("value")
    places = np.unique(steps >> track.exponent)
    np.testing.assert_array_equal(track.steps >> track.exponent, places)
    for n, place in enumerate(places):
        inside = values[(steps >> track.exponent) == place]
        known = inside[~np.isnan(inside)]
        assert found.known[n, 0] == len(known)
        assert track.steps[n] == steps[(steps >> track.exponent) == place].min()
        expected = (
            (known.min(), known.mean(), known.max()) if len(known) else [np.nan] * 3
        )
        shown = [found.least[n, 0], found.mean[n, 0], found.most[n, 0]]
        np.testing.assert_allclose(shown, expected, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    helpings=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    apart=st.sampled_from([1, 7]),
    after=st.integers(0, 5),
    flushes=st.sets(st.integers(0, 5)),
    late=st.booleans(),
)
def test_buckets_are_those_of_all_rows(
    tmp_path_factory: pytest.TempPathFactory,
    helpings: list[int],
    apart: int,
    after: int,
    flushes: set[int],
    late: bool,
) -> None:
    logged = Logged(tmp_path_factory.mktemp("runs") / "one")
    random, track = np.random.default_rng(0), None
    steps, values = np.empty(0, np.int64), np.empty(0)
    for n, helping in enumerate(helpings):
        new = apart * np.arange(len(steps), len(steps) + helping)
        if late and n == 3:
            new = new[::-1] // 2  # a loop may log for steps that have been
        fresh = random.lognormal(size=helping)
        fresh[random.random(helping) < 0.1] = np.nan
        logged.write(new, fresh)
        steps, values = np.append(steps, new), np.append(values, fresh)
        if n in flushes:
            logged.flush()
        if track is not None:
            track.poll()
        elif n >= after:
            track = logged.track(32)
    for each in (track, logged.track(32)):
        if each is not None:
            check(each, steps, values, 32)
            if len(steps) and not late:
                np.testing.assert_array_equal(each.last("value")[0], values[-1])
    logged.close()


def test_the_newest_number_is_exact_in_a_sealed_run(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "one")
    values = np.random.default_rng(0).lognormal(size=100_000)
    logged.write(np.arange(100_000), values)
    logged.flush()
    logged.run.end()
    compact(logged.path)
    track = logged.track(100)
    assert not track.is_exact
    assert track.last("value")[0] == values[-1]
    check(track, np.arange(100_000), values, 100)


def test_a_window_takes_what_comes_inside_of_it(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "one")
    logged.write(range(50), range(50))
    track = logged.track(1000, window=(40, 60))
    assert track.steps.tolist() == list(range(40, 50))
    logged.write(range(50, 55), range(50, 55))
    assert track.poll()
    logged.write(range(55, 80), range(55, 80))
    assert track.poll()
    assert not track.poll()
    assert track.steps.tolist() == list(range(40, 60))
    logged.close()


def test_a_track_that_was_left_behind_reads_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynoscope.dashboard.track.ROWS", 100)
    logged = Logged(tmp_path / "one")
    logged.write(range(10), range(10))
    track = logged.track(64)
    logged.write(range(10, 2000), range(10, 2000))
    assert track.poll()
    steps = np.arange(2000)
    check(track, steps, steps.astype(float), 64)
    logged.close()
