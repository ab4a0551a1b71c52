import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dynoscope
from dynoscope.diff import diff, stretches
from dynoscope.errors import RunNotFoundError, UncomparableError
from dynoscope.reader import Run
from dynoscope.schema import TABLES
from tests.diff.runs import Net, adamw, lion, record, train

COMPARED = TABLES["layers"].names("measured", "setting", "predicted")
POSITIVE = {
    "weight_norm", "weight_max", "grad_l1", "grad_l2", "grad_ratio", "momentum_norm",
    "update_norm", "update_ratio", "angular_update", "lr", "weight_decay",
    "pred_weight_norm", "pred_angular_update", "pred_update_rms", "pred_half_life",
    "traj_weight_norm", "traj_angular_update",
    "scaled_grad_norm", "pred_effective_weight_norm", "pred_effective_angular_update",
}  # fmt: skip


def brute_force(
    rows_a: dict[int, float],
    rows_b: dict[int, float],
    positive: bool,
    threshold: float = 0.1,
) -> Any:
    """Compare {step: value} of two runs, one number at a time."""
    sum_a, sum_b, count = 0.0, 0.0, 0
    largest, largest_step, first_step, farthest = 0.0, None, None, 0.0
    for step in sorted(set(rows_a) & set(rows_b)):
        x, y = float(rows_a[step]), float(rows_b[step])
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        sum_a, sum_b, count = sum_a + x, sum_b + y, count + 1
        if not positive:
            change, apart, limit = y - x, abs(y - x), threshold
        elif x == y:
            change, apart, limit = 0.0, 0.0, threshold
        elif 0 in (x, y):
            change, apart, limit = (math.inf if x == 0 else -1.0), math.inf, threshold
        else:
            change, apart = y / x - 1, max(x, y) / min(x, y) - 1
            limit = threshold
        if apart > farthest:
            farthest, largest, largest_step = apart, change, step
        if first_step is None and apart > limit:
            first_step = step
    return sum_a, sum_b, count, largest, largest_step, first_step


def by_step(run: Run, layer: str, metric: str) -> dict[int, float]:
    rows = run.layers(metric=metric, layer=layer)
    return dict(zip(rows["step"], rows[metric], strict=True))


def check_row(row: Any, run_a: Run, run_b: Run) -> None:
    expected = brute_force(
        by_step(run_a, row["layer"], row["metric"]),
        by_step(run_b, row["layer"], row["metric"]),
        row["metric"] in POSITIVE,
    )
    sum_a, sum_b, count, largest, largest_step, first_step = expected
    assert row["steps"] == count
    if not count:
        assert math.isnan(row["relative"])
        assert math.isnan(row["largest"])
        return
    a, b = sum_a / count, sum_b / count
    assert (row["a"], row["b"]) == (
        pytest.approx(a, rel=1e-9, abs=1e-15),
        pytest.approx(b, rel=1e-9, abs=1e-15),
    )
    if row["metric"] in POSITIVE and 0 not in (a, b):
        assert row["relative"] == pytest.approx((b - a) / a, rel=1e-9, abs=1e-15)
        assert row["distance"] == pytest.approx(
            abs(math.log(b / a)), rel=1e-9, abs=1e-15
        )
    if row["metric"] not in POSITIVE:
        assert row["relative"] == pytest.approx(b - a, rel=1e-9, abs=1e-15)
        assert row["distance"] == pytest.approx(abs(b - a), rel=1e-9, abs=1e-15)
    assert row["largest"] == pytest.approx(largest, rel=1e-9, abs=1e-12)
    assert none_if_na(row["largest_step"]) == largest_step
    assert none_if_na(row["first_step"]) == first_step


def none_if_na(value: Any) -> Any:
    return None if value is pd.NA else value


def test_layers_equal_a_slow_comparison(a: Path, b: Path) -> None:
    found = diff(a, b)
    run_a, run_b = dynoscope.open_run(a), dynoscope.open_run(b)
    assert len(found.layers) == len(run_a.layer_names) * len(COMPARED)
    assert list(found.layers["layer"].unique()) == run_a.layer_names
    for _, row in found.layers.iterrows():
        check_row(row, run_a, run_b)


def test_roll_ups_equal_a_slow_comparison(a: Path, b: Path) -> None:
    found = diff(a, b)
    run_a, run_b = dynoscope.open_run(a), dynoscope.open_run(b)
    assert list(found.roll_ups["layer"].unique()) == run_a.roll_ups
    for _, row in found.roll_ups.iterrows():
        if row["layer"] in ("*", "features.*"):
            check_row(row, run_a, run_b)


def test_the_whole_models_norm_is_that_of_all_its_layers(a: Path, b: Path) -> None:
    found = diff(a, b)
    rows = dynoscope.open_run(a).layers("weight_norm", steps=(0, 24))
    squares = rows["weight_norm"].astype(float) ** 2
    norms = np.sqrt(squares.groupby(rows["step"]).sum())
    np.testing.assert_allclose(found.curves["weight_norm_a"], norms, rtol=1e-6)
    assert found.whole.loc["weight_norm", "a"] == pytest.approx(norms.mean(), rel=1e-6)


def test_pieces_do_not_show(a: Path, b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = diff(a, b)
    monkeypatch.setattr(stretches, "MOST_ROWS", 25)  # five steps of five layers
    monkeypatch.setattr(stretches, "STRETCH_ROWS", 10)
    pieces = diff(a, b)
    for name in ("layers", "roll_ups", "curves", "normalization"):
        pd.testing.assert_frame_equal(
            getattr(pieces, name), getattr(whole, name), rtol=1e-12
        )


def test_pieces_of_layers_that_take_turns_do_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = record(tmp_path / "adamw", adamw, 40, turns=3)
    b = record(tmp_path / "lion", lion, 40, turns=2)
    whole = diff(a, b)
    assert whole.whole.loc["weight_norm", "steps"] == 38  # once all have had a turn
    monkeypatch.setattr(stretches, "LEAST_ROWS", 1)
    monkeypatch.setattr(stretches, "MOST_ROWS", 20)
    monkeypatch.setattr(stretches, "STRETCH_ROWS", 15)  # three steps of five layers
    pieces = diff(a, b)
    for name in ("layers", "roll_ups", "curves"):
        pd.testing.assert_frame_equal(
            getattr(pieces, name), getattr(whole, name), rtol=1e-12
        )


def test_a_run_does_not_differ_from_itself(a: Path) -> None:
    found = diff(a, a)
    for frame in (found.layers, found.roll_ups, found.normalization):
        compared = frame[frame["steps"] > 0]
        assert (compared[["relative", "distance", "largest"]] == 0).all().all()
        assert compared[["largest_step", "first_step"]].isna().all().all()
        assert (compared["steps"] + compared["only_a"] + compared["only_b"] <= 30).all()
    assert (found.scalars["relative"] == 0).all()
    assert found.config.empty
    assert found.config_equal > 20
    assert found.first_to_differ().empty
    assert (found.most_different()["score"] == 0).all()
    assert "equal at every common step" in found.summary


def test_turning_it_round_changes_signs_only(a: Path, b: Path) -> None:
    there, back = diff(a, b), diff(b, a)
    for name in ("distance", "first_step", "largest_step", "steps"):
        pd.testing.assert_series_equal(there.layers[name], back.layers[name])
    assert list(there.most_different()["layer"]) == list(back.most_different()["layer"])
    np.testing.assert_array_equal(there.layers["a"], back.layers["b"])


def test_only_common_steps_count(a: Path, b: Path, sparse: Path) -> None:
    assert len(diff(a, b).steps) == 24
    found = diff(a, sparse)
    assert found.steps.numbers.tolist() == list(range(0, 30, 3))
    assert (found.steps.first, found.steps.last) == (0, 27)
    assert (found.steps.of_a, found.steps.of_b) == (30, 14)
    assert "10 steps from 0 to 27" in found.summary
    run_a, run_b = dynoscope.open_run(a), dynoscope.open_run(sparse)
    for _, row in found.layers[found.layers["layer"] == "head.weight"].iterrows():
        check_row(row, run_a, run_b)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (5, [5]),
        ((3, 6), [3, 4, 5]),
        (slice(20, None), [20, 21, 22, 23]),
        (slice(None, 10, 4), [0, 4, 8]),
        (range(1, 9, 3), [1, 4, 7]),
    ],
)
def test_steps_can_be_chosen(a: Path, b: Path, steps: Any, expected: list[int]) -> None:
    found = diff(a, b, steps=steps)
    assert found.steps.numbers.tolist() == expected
    assert (found.logged["steps"] == len(expected)).all()
    assert found.layers["steps"].max() == len(expected)


def test_threshold(a: Path, b: Path) -> None:
    strict, lax = diff(a, b, threshold=1e-6), diff(a, b, threshold=1e6)
    assert strict.layers["first_step"].notna().sum() > len(strict.layers) / 2
    assert lax.layers["first_step"].isna().all()


def test_scalars_equal_a_slow_comparison(a: Path, b: Path) -> None:
    found: Any = diff(a, b).scalars.set_index("name")
    values: list[dict[Any, float]] = [
        dynoscope.open_run(run).scalars("loss").set_index("step")["value"].to_dict()
        for run in (a, b)
    ]
    common = sorted(set(values[0]) & set(values[1]))
    assert found.loc["loss", "steps"] == len(common) == 24
    means = []
    for side, logged in zip("ab", values, strict=True):
        numbers = [logged[step] for step in common]
        assert found.loc["loss", f"{side}_last"] == numbers[-1]
        assert found.loc["loss", f"{side}_min"] == min(numbers)
        means.append(sum(numbers) / len(numbers))
        assert found.loc["loss", f"{side}_mean"] == pytest.approx(means[-1])
    expected = (means[1] - means[0]) / means[0]
    assert found.loc["loss", "relative"] == pytest.approx(expected)
    assert found.loc["balance", "relative"] == 0  # its mean is 0 in both
    assert "dynoscope/hook_seconds" not in set(diff(a, b).logged["name"])


def test_configuration(a: Path, b: Path) -> None:
    found = diff(a, b)
    config: Any = found.config.set_index("key")
    assert config.loc["optimizer.name"].tolist() == ["AdamW", "Lion"]
    assert config.loc["optimizer.groups[0].lr"].tolist() == [3e-3, 1e-3]
    assert config.loc["config.tag.x"].tolist() == [1, 2]
    assert "config.batch" not in config.index
    assert "optimizer.groups[0].amsgrad" not in config.index  # off, and unknown
    assert "versions.torch" not in config.index


def test_layers_of_one_run_only(a: Path, folder: Path) -> None:
    other = record(folder / "other-head", lion, 10, head="tail")
    found = diff(a, other)
    assert found.only_a == ["head.weight", "head.bias"]
    assert found.only_b == ["tail.weight", "tail.bias"]
    assert "head.weight" not in set(found.layers["layer"])
    assert set(found.roll_ups["layer"]) == {
        "*",
        "features.*",
        "features.0.*",
        "features.1.*",
    }
    assert "2 layers in adamw only" in found.summary


def test_normalization_counts(a: Path, b: Path) -> None:
    found = diff(a, b).normalization
    assert set(found["layer"]) == {"features.1.bias"}
    assert set(found["metric"]) == set(TABLES["normalization"].names("measured"))


def test_nan_in_one_run_is_said(a: Path, folder: Path) -> None:
    broken = record(folder / "broken", adamw, 20, nan_from=9)
    found = diff(a, broken)
    rows: Any = found.layers.set_index(["layer", "metric"])
    row = rows.loc[("features.0.weight", "weight_norm")]
    assert (row["steps"], row["only_a"], row["only_b"]) == (10, 10, 0)
    assert (
        "broken has NaN or infinite entries at 11 of the common steps" in found.summary
    )
    assert "first at step 9" in found.summary


def test_a_run_that_is_being_written(a: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = lion(model)
    with dynoscope.watch(model, optimizer, run=tmp_path / "live", quiet=True) as scope:
        train(model, optimizer, scope, 8)
        for _ in range(100):
            if dynoscope.open_run(scope.run).last_step == 7:
                break
            time.sleep(0.05)
        found = diff(a, scope.run)
    assert found.b.status == "running"
    assert found.steps.last == 7


def test_most_different_is_the_mean_of_capped_distances(a: Path, b: Path) -> None:
    found = diff(a, b)
    scores: dict[Any, float] = {}
    for layer, rows in found.layers.groupby("layer"):
        rows = rows[(rows["role"] == "measured") & rows["distance"].notna()]
        scores[layer] = sum(min(d, 5.0) for d in rows["distance"]) / len(rows)
    top = found.most_different(3)
    assert (
        list(top["layer"]) == sorted(scores, key=scores.__getitem__, reverse=True)[:3]
    )
    assert top["score"].tolist() == pytest.approx([scores[n] for n in top["layer"]])
    assert len(found.most_different(None)) == len(scores)


def test_the_first_layer_to_differ(a: Path, b: Path) -> None:
    first = diff(a, b, threshold=0.01).first_to_differ()
    assert first["first_step"].is_monotonic_increasing
    assert (first["metric"] == "weight_norm").all()


def test_no_layer_in_common(a: Path, folder: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    optimizer = adamw(model)
    with dynoscope.watch(model, optimizer, run=folder / "linear", quiet=True):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    with pytest.raises(
        UncomparableError, match=r"no layer in common.*features.*weight"
    ):
        diff(a, folder / "linear")


def test_no_step_in_common(a: Path, b: Path, sparse: Path) -> None:
    with pytest.raises(UncomparableError, match=r"no measured step in common within"):
        diff(a, b, steps=(100, 200))
    with pytest.raises(UncomparableError, match=r"14 measured steps from 0 to 39"):
        diff(a, sparse, steps=(1, 3))


def test_folders_that_are_no_runs(a: Path, tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="does not exist"):
        diff(a, tmp_path / "nothing")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunNotFoundError, match="not a dynoscope manifest"):
        diff(tmp_path, a)


def test_neither_torch_nor_plotly_is_loaded(a: Path, b: Path) -> None:
    code = (
        "import sys; from dynoscope.diff import diff; "
        "from dynoscope.diff.text import print_diff; "
        f"print_diff(diff({str(a)!r}, {str(b)!r})); "
        "sys.exit(bool({'torch', 'plotly', 'dash'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
