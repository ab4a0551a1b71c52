"""A long run, while it is written: what is read and held does not grow with it."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dynoscope import open_run
from dynoscope.dashboard.heatmap import rotation_map
from dynoscope.dashboard.plots import (
    DEFAULT_METRICS,
    Plot,
    layer_plot,
    lr_plot,
    scalar_plot,
)
from dynoscope.dashboard.rotation import COLUMNS
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import SCHEMES
from dynoscope.dashboard.track import BYTES, POINTS
from dynoscope.reader import Cursor, Run
from dynoscope.reader.footers import Footer
from dynoscope.recorder import Recorder, journal, recorder
from dynoscope.sealing import Sealer, coarse, plan
from tests.benchmarks.long_run import measurements, subject
from tests.dashboard.test_plots import traces, unpacked

STEPS, LAYERS, NEW = 20_000, 20, 7
LIGHT = SCHEMES["light"]


class Written(NamedTuple):
    """A run that goes on."""

    run: Run
    write: Callable[[int], None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    folder = tmp_path_factory.mktemp("long") / "run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "PART_ROWS", 9000)
        patch.setattr(recorder, "HEARTBEAT", 0.01)
        patch.setattr(plan, "FULL", 12 << 20)
        patch.setattr(coarse, "LEAST", 1000)
        watched = subject(LAYERS)
        made = measurements(watched, 2 * STEPS)
        recording = Recorder(folder, watched, {}, strict=True, sealer=Sealer(folder))
        recording.start()

        def write(steps: int) -> None:
            for measurement in itertools.islice(made, steps):
                while not recording.has_room():
                    time.sleep(1e-3)
                recording.put(measurement)
                last = measurement.step
            while run.last_step != last:
                time.sleep(0.01)

        run = open_run(folder)
        write(STEPS)
        yield Written(run, write)
        recording.close(None, 0)


def draw(state: RunState, layer: str) -> dict[str, Plot]:
    states = {"run": state}
    rotation_map(state, layer, LIGHT)
    return {
        "lr": lr_plot(states, LIGHT),
        "cost": scalar_plot(states, "dynoscope/hook_seconds", LIGHT, log=False),
        **{name: layer_plot(states, layer, name, LIGHT) for name in DEFAULT_METRICS},
    }


def test_a_tick_reads_what_is_new_and_nothing_else(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(written.run)
    state.refresh()
    for layer in (written.run.layer_names[1], "*", "blocks.2.*"):
        draw(state, layer)
    written.write(NEW)
    read: list[int] = []
    files: list[str] = []
    poll, part = Cursor.poll, Footer.read

    def counting(self: Cursor, *args: int) -> pa.Table:
        rows = poll(self, *args)
        read.append(len(rows))
        return rows

    def noting(self: Footer, *args: Any) -> pa.Table:
        files.append(str(self))
        return part(self, *args)

    monkeypatch.setattr(Cursor, "poll", counting)
    monkeypatch.setattr(Footer, "read", noting)
    assert state.refresh()
    assert max(read) == NEW * LAYERS
    assert sum(read) <= len(list(state.tracks)) * NEW * LAYERS + 2 * NEW
    for layer in (written.run.layer_names[1], "*", "blocks.2.*"):
        draw(state, layer)
    assert files == []


def test_what_is_held_is_bounded(written: Written) -> None:
    state = RunState(written.run)
    state.refresh()
    for layer in (*written.run.layer_names[:2], "*"):
        draw(state, layer)
    tracks = list(state.tracks)
    assert len(tracks) > 10
    for track in tracks:
        assert len(track) <= POINTS
        assert track.nbytes <= BYTES
    assert len(state.rotation().track) <= COLUMNS
    assert sum(track.nbytes for track in tracks) < 16 << 20


@pytest.fixture(scope="module")
def rows(written: Written) -> pd.DataFrame:
    return written.run.layers(layer=written.run.layer_names[4])


@pytest.mark.parametrize("name", DEFAULT_METRICS)
def test_figures_are_means_and_extremes_of_all_rows(
    written: Written, rows: pd.DataFrame, name: str
) -> None:
    state = RunState(written.run)
    state.refresh()
    layer = written.run.layer_names[4]
    drawn = traces(layer_plot({"run": state}, layer, name, LIGHT))
    held = state.held("layers", layer, [name])[name]
    steps = unpacked(drawn["run"]["x"])
    values = rows[name].to_numpy(dtype=float)[: held.track.last_step + 1]
    for found, expected in (
        ("run", np.add.reduceat(values, steps) / np.diff([*steps, len(values)])),
        ("run least", np.minimum.reduceat(values, steps)),
        ("run most", np.maximum.reduceat(values, steps)),
    ):
        np.testing.assert_allclose(unpacked(drawn[found]["y"]), expected, rtol=1e-6)
    assert 100 < len(steps) <= 500
    assert held.last == values[-1]


def test_zoomed_in_every_step_is_exact(written: Written, rows: pd.DataFrame) -> None:
    state, window = RunState(written.run), (12_345, 12_900)
    state.refresh()
    states, layer = {"run": state}, written.run.layer_names[4]
    data = layer_plot(states, layer, "grad_l2", LIGHT, window).figure["data"]
    fine = data[-1]  # on top
    steps = unpacked(fine["x"])
    assert steps.tolist() == list(range(*window))
    np.testing.assert_array_equal(unpacked(fine["y"]), rows["grad_l2"].iloc[steps])
    outside = unpacked(data[-2]["x"])
    assert (outside[0], len(outside)) == (0, len(np.unique(outside)) + 1)
    assert not ((outside > window[0]) & (outside < window[1] - 1)).any()
    assert np.isnan(unpacked(data[-2]["y"])).sum() == 1


def test_a_roll_up_is_near_that_of_all_rows(written: Written) -> None:
    state = RunState(written.run)
    state.refresh()
    found = state.held("layers", "*", ["weight_norm", "angular_update"])
    frame = written.run.layers([*found], "*")
    for name, held in found.items():
        values = frame[name].to_numpy()[: held.track.last_step + 1]
        wanted = np.add.reduceat(values, held.steps) / held.buckets.known
        np.testing.assert_allclose(held.buckets.mean, wanted, rtol=2e-2)
        assert held.last == pytest.approx(values[-1], rel=1e-6)


def test_the_map_is_that_of_all_rows(written: Written) -> None:
    state = RunState(written.run)
    rotation = state.rotation()
    first, last = rotation.steps
    frame = written.run.layers("angular_update")
    wide = frame["angular_update"].to_numpy().reshape(-1, LAYERS)[: last[-1] + 1]
    wanted = np.add.reduceat(wide, first) / (last - first + 1)[:, None]
    np.testing.assert_allclose(rotation.measured(), wanted, rtol=1e-5)
