"""A long run through the real recorder: sealed as it goes, and read as it was."""

import numpy as np
import pytest

import dynoscope
from dynoscope.recorder import journal, recorder
from dynoscope.sealing import coarse, compact, plan
from tests.benchmarks.long_run import opened, sizes, write_run

STEPS, LAYERS = 2000, 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dynoscope.Run:
    """60,000 rows in some full segments and what is left at the end."""
    folder = tmp_path_factory.mktemp("long") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "PART_ROWS", 4000)
        patch.setattr(recorder, "HEARTBEAT", 0.01)
        patch.setattr(plan, "FULL", 3 << 20)
        patch.setattr(coarse, "LEAST", 1000)
        write_run(folder, STEPS, LAYERS)
        compact(folder)
    return dynoscope.open_run(folder)


def test_it_is_small_and_whole(run: dynoscope.Run) -> None:
    kinds = sizes(run.folder)
    assert "layers part files" not in kinds
    assert kinds["layers segment files"] > 1
    total = kinds["layers segment bytes"] + kinds["levels layers bytes"]
    assert total / (STEPS * LAYERS) <= 100
    frame = run.layers("step", run.layer_names[3])
    assert frame["step"].tolist() == list(range(STEPS))
    assert run.last_step == STEPS - 1
    assert not run.problems


def test_what_is_shown_is_what_was_recorded(run: dynoscope.Run) -> None:
    name = run.layer_names[7]
    rows = run.layers("grad_l2", name)["grad_l2"].to_numpy()
    found = run.overview("grad_l2", points=40)
    at = found.names.index(name)
    for n, start in enumerate(found.step):
        inside = rows[start : start + found.width]
        assert found.min[n, at] == inside.min()
        assert found.max[n, at] == inside.max()
        assert found.mean[n, at] == pytest.approx(inside.mean(dtype=float))
        assert found.count[n, at] == len(inside)
    thinned = run.series("grad_l2", name, points=100)
    np.testing.assert_array_equal(thinned.value, rows[thinned.step])


def test_what_is_timed_works(run: dynoscope.Run) -> None:
    found = opened(run.folder)
    assert found["buckets"] > 0
    assert all(value >= 0 for value in found.values())
