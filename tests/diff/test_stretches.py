import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynoscope.diff import comparison, diff, stretches
from dynoscope.diff.result import Diff
from dynoscope.errors import UncomparableError
from dynoscope.reader import open_run
from dynoscope.reader.files import list_files
from dynoscope.schema.process import Writer
from dynoscope.sealing import segment
from tests.diff.made import (
    COMPARED,
    LAYERS,
    compare,
    curves_of,
    make_rows,
    rows_of,
    write_manifest,
    write_rows,
)


@pytest.fixture(scope="module", autouse=True)
def _small_pieces() -> Iterator[None]:
    """Many pieces of everything, so that their ends are met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretches, "LEAST_ROWS", 20)
        patch.setattr(stretches, "MOST_ROWS", 40)
        patch.setattr(stretches, "STRETCH_ROWS", 16)
        patch.setattr(segment, "GROUP_ROWS", 12)
        yield


@st.composite
def run_plans(draw: st.DrawFn) -> dict[str, Any]:
    """What a run has: layers in some order, steps, files."""
    layers = draw(st.permutations(LAYERS))[: draw(st.integers(2, len(LAYERS)))]
    every = draw(st.sampled_from([1, 1, 2, 5]))
    first = every * draw(st.integers(0, 4))
    steps = list(range(first, first + every * draw(st.integers(5, 30)), every))
    parts = sorted(draw(st.sets(st.integers(1, 140), max_size=5)))
    sealed = [range(n) for n in draw(st.sets(st.integers(1, 6), max_size=1))]
    return {
        "layers": layers,
        "steps": steps,
        "cuts": parts,
        "sealed": sealed,
        "again": draw(st.booleans()),
        "seed": draw(st.integers(0, 1 << 30)),
    }


def make(run: Path, plan: dict[str, Any]) -> None:
    random = np.random.default_rng(plan["seed"])
    rows = make_rows(plan["layers"], plan["steps"], random)
    if plan["again"]:  # some rows, written twice
        rows = pd.concat([rows, rows[-7:].assign(weight_norm=2.5)], ignore_index=True)
    run.mkdir()
    write_manifest(run, plan["layers"])
    cuts = [cut for cut in plan["cuts"] if cut < len(rows)]
    write_rows(run, rows, cuts, plan["sealed"])


@given(
    run_plans(),
    run_plans(),
    st.sampled_from([None, (3, 20), slice(2, None, 3)]),
    st.booleans(),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_two_runs_compare_as_row_by_row(
    tmp_path_factory: pytest.TempPathFactory,
    plan_a: dict[str, Any],
    plan_b: dict[str, Any],
    steps: Any,
    is_alike: bool,
) -> None:
    folder = tmp_path_factory.mktemp("made")
    if is_alike:  # the same rows, in other files
        plan_b = {**plan_b, **{k: plan_a[k] for k in ("layers", "steps", "seed")}}
    for name, plan in (("a", plan_a), ("b", plan_b)):
        make(folder / name, plan)
    rows = [rows_of(folder / name) for name in "ab"]
    common = expected_steps(rows, steps)
    if not common or not {*plan_a["layers"]} & {*plan_b["layers"]}:
        with pytest.raises(UncomparableError):
            diff(folder / "a", folder / "b", steps=steps)
        return
    found = diff(folder / "a", folder / "b", steps=steps)
    assert found.steps.numbers.tolist() == common
    assert [found.steps.of_a, found.steps.of_b] == [x["step"].nunique() for x in rows]
    check_rows(found, rows)
    check_names(found, plan_a["layers"], plan_b["layers"])
    for side, its in zip("ab", rows, strict=True):
        curve = curves_of(its, "*")["weight_norm"]
        expected = [curve.get(step, math.nan) for step in common]
        np.testing.assert_allclose(found.curves[f"weight_norm_{side}"], expected)


def expected_steps(rows: list[pd.DataFrame], steps: Any) -> list[int]:
    chosen = slice(*steps) if isinstance(steps, tuple) else steps or slice(None)
    wanted = range(200)[chosen]
    return sorted(set(rows[0]["step"]) & set(rows[1]["step"]) & set(wanted))


def check_rows(found: Diff, rows: list[pd.DataFrame]) -> None:
    for name, its in pd.concat([found.layers, found.roll_ups]).groupby("layer"):
        a, b = (curves_of(each, str(name)) for each in rows)
        for row in its.itertuples():
            metric = str(row.metric)
            if metric in a and metric in b:
                steps = found.steps.numbers.tolist()
                check(row, compare(a[metric], b[metric], steps, metric))


def check(row: Any, expected: dict[str, Any]) -> None:
    for name in ("steps", "only_a", "only_b"):
        assert getattr(row, name) == expected[name], row
    for name in ("a", "b", "largest"):
        wanted = pytest.approx(expected[name], 1e-9, 1e-12, nan_ok=True)
        assert getattr(row, name) == wanted, row
    if expected["farthest"] > 1e-9:  # else it may be rounding, in modules
        assert row.largest_step == expected["largest_step"], row
    assert none_if_na(row.first_step) == expected["first_step"], row


def none_if_na(value: Any) -> Any:
    return None if value is pd.NA else value


def check_names(found: Diff, layers_a: list[str], layers_b: list[str]) -> None:
    shared = [name for name in layers_a if name in layers_b]
    assert list(found.layers["layer"]) == list(np.repeat(shared, len(COMPARED)))
    assert list(found.layers["metric"]) == COMPARED * len(shared)
    modules = [n for n in found.a.run.roll_ups if n in found.b.run.roll_ups]
    assert list(found.roll_ups["layer"]) == list(np.repeat(modules, len(COMPARED)))
    assert found.only_a == [name for name in layers_a if name not in layers_b]


def test_progress_reaches_the_end(a: Path, b: Path) -> None:
    shares: list[float] = []
    found = diff(a, b, progress=shares.append)
    assert shares == sorted(shares)
    assert len(shares) > 1
    assert shares[-1] == 1
    assert len(found.curves) == len(found.steps)


def test_an_error_in_another_thread_comes_through(
    a: Path, b: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(comparison.Comparison, "_take", fail)
    with pytest.raises(ZeroDivisionError):
        diff(a, b)


def test_a_damaged_file_is_named_and_passed_over(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    rows = make_rows(LAYERS, range(40), np.random.default_rng(0))
    for name in "ab":
        (folder / name).mkdir()
        write_manifest(folder / name, LAYERS)
        write_rows(folder / name, rows, [50, 100], [])
    part = folder / "a" / "layers" / "part-00000001.parquet"
    part.write_bytes(part.read_bytes()[:-400])
    with pytest.warns(UserWarning, match="part-00000001"):
        found = diff(folder / "a", folder / "b")
    measured = set(open_run(folder / "b").layers("step")["step"])
    lost = set(rows[50:100]["step"]) - set(rows[:50]["step"]) - set(rows[100:]["step"])
    assert set(found.steps.numbers) == measured - lost


def test_runs_that_are_being_written_compare_as_when_they_are_sealed(
    tmp_path: Path,
) -> None:
    for seed, name in enumerate("ab"):
        rows = make_rows(LAYERS, range(40), np.random.default_rng(seed))
        for state in ("written", "sealed"):
            run = tmp_path / state / name
            run.mkdir(parents=True)
            write_manifest(run, LAYERS)
            write_rows(run, rows, [40, 90], [])
        _seal(tmp_path / "sealed" / name, rows)
        _mark_running(tmp_path / "written" / name)
    sealed = diff(*(tmp_path / "sealed" / name for name in "ab"))
    for states in (("written", "written"), ("written", "sealed")):
        a, b = (tmp_path / s / n for s, n in zip(states, "ab", strict=True))
        found = diff(a, b)
        assert found.a.status == "running"
        assert found.steps.numbers.tolist() == sealed.steps.numbers.tolist()
        for name in ("layers", "roll_ups", "curves"):
            mine, its = getattr(found, name), getattr(sealed, name)
            pd.testing.assert_frame_equal(mine, its, rtol=1e-12)


def _seal(run: Path, rows: pd.DataFrame) -> None:
    """One segment of all there is, the journal's rows among them."""
    for file in list_files(run, "layers"):
        (run / "layers" / file.name).unlink()
    write_rows(run, rows, [40, 90, len(rows)], [])
    segment.write_segment(run / "layers", list_files(run, "layers"))
    (sealed,) = list_files(run, "layers")
    assert sealed.is_segment


def _mark_running(run: Path) -> None:
    """What the manifest says while this process writes the run."""
    path = run / "run.json"
    manifest = json.loads(path.read_text())
    writer = dataclasses.asdict(Writer.current())
    manifest.update(status="running", writer=writer, heartbeat=time.time())
    path.write_text(json.dumps(manifest))
    assert not all(file.is_part for file in list_files(run, "layers"))
