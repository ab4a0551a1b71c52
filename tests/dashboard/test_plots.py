import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.graph_objects import Figure

from dynoscope import open_run
from dynoscope.dashboard.counts import count_plot
from dynoscope.dashboard.figures import Curve, curves_figure
from dynoscope.dashboard.heatmap import CLIP, rotation_map
from dynoscope.dashboard.plots import (
    Plot,
    find_metric,
    layer_metrics,
    layer_plot,
    lr_plot,
    scalar_plot,
)
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import SCHEMES
from dynoscope.schema import TABLES, Metric
from tests.dashboard.runs import WrittenRun

MakeRun = Callable[..., WrittenRun]

LIGHT = SCHEMES["light"]


def unpacked(spec: dict[str, str]) -> np.ndarray:
    array = np.frombuffer(base64.b64decode(spec["bdata"]), spec["dtype"])
    return array.reshape([int(n) for n in spec.get("shape", "-1").split(",")])


def traces(plot: Plot) -> dict[str, Any]:
    Figure(plot.figure)  # plotly itself accepts it
    return {trace["name"]: trace for trace in plot.figure["data"]}


@pytest.fixture
def states(written: WrittenRun) -> dict[str, RunState]:
    state = RunState(open_run(written.path))
    state.refresh()
    return {"one": state}


def test_scalar_has_the_runs_numbers(
    states: dict[str, RunState], written: WrittenRun
) -> None:
    plot = scalar_plot(states, "loss", LIGHT, log=False)
    frame = open_run(written.path).scalars("loss")
    trace = traces(plot)["one"]
    np.testing.assert_array_equal(unpacked(trace["x"]), frame["step"])
    np.testing.assert_array_equal(unpacked(trace["y"]), frame["value"])


@pytest.mark.parametrize("layer", ["a.weight", "a.*", "*"])
def test_every_layer_metric_has_the_runs_numbers(
    states: dict[str, RunState], written: WrittenRun, layer: str
) -> None:
    frame = open_run(written.path).layers(layer=layer)
    predictions: dict[str, list[Metric]] = {}
    for column in TABLES["layers"].columns:
        predictions.setdefault(column.of, []).append(column)
    for name in TABLES["layers"].names("measured", "setting"):
        drawn = traces(layer_plot(states, layer, name, LIGHT))
        np.testing.assert_allclose(unpacked(drawn["one"]["y"]), frame[name], rtol=1e-6)
        dashes = set()
        for predicted in predictions.get(name, []):
            prediction = drawn[f"one, {predicted.label}"]
            dashes.add(prediction["line"]["dash"])
            assert prediction["line"]["color"] == drawn["one"]["line"]["color"]
            expected = frame[predicted.name]
            np.testing.assert_allclose(unpacked(prediction["y"]), expected, rtol=1e-6)
        assert len(dashes) == len(predictions.get(name, []))
        assert "solid" not in dashes


def test_every_column_can_be_chosen() -> None:
    reachable = {name.removeprefix("neurons.") for name in layer_metrics()}
    layers = {c.name for c in TABLES["layers"].columns if c.role != "key" and not c.of}
    assert reachable == layers | set(TABLES["neurons"].names("measured"))
    assert all(find_metric(name).description for name in layer_metrics())


def test_neurons_are_a_band(states: dict[str, RunState], written: WrittenRun) -> None:
    drawn = traces(layer_plot(states, "a.weight", "weight_norm", LIGHT))
    frame = open_run(written.path).neurons()
    for which in ("p05", "p50", "p95"):
        values = unpacked(drawn[f"one, neurons {which}"]["y"])
        np.testing.assert_array_equal(values, frame[f"weight_norm_{which}"])
    predictions = [c for c in TABLES["layers"].columns if c.of == "weight_norm"]
    drawn = traces(layer_plot(states, "a.bias", "weight_norm", LIGHT))
    assert len(drawn) == 1 + len(predictions)


def test_neuron_metrics_are_drawn_where_there_are_neurons(
    states: dict[str, RunState], written: WrittenRun
) -> None:
    plot = layer_plot(states, "a.weight", "neurons.weight_norm_cv", LIGHT)
    expected = open_run(written.path).neurons()["weight_norm_cv"]
    np.testing.assert_array_equal(unpacked(traces(plot)["one"]["y"]), expected)
    assert not traces(layer_plot(states, "*", "neurons.weight_norm_cv", LIGHT))


def test_counts_are_sums_over_layers(
    states: dict[str, RunState], written: WrittenRun
) -> None:
    frame = open_run(written.path).normalization()
    for name in ("dead", "revived"):
        drawn = traces(count_plot(states, name, LIGHT))["one, all layers"]
        expected = frame.groupby("step")[name].sum().to_numpy()
        if name == "revived":
            expected = np.cumsum(expected)
        np.testing.assert_array_equal(unpacked(drawn["y"]), expected)


def test_companions_are_means_over_layers(
    states: dict[str, RunState], written: WrittenRun
) -> None:
    frame = open_run(written.path).normalization()
    drawn = traces(count_plot(states, "weight_q95", LIGHT))["one, mean of layers"]
    expected = frame.groupby("step")["weight_q95"].mean().to_numpy()
    np.testing.assert_allclose(unpacked(drawn["y"]), expected)


def test_learning_rate_per_group(
    states: dict[str, RunState], written: WrittenRun
) -> None:
    drawn = traces(lr_plot(states, LIGHT))["one"]
    expected = open_run(written.path).groups()["lr"]
    np.testing.assert_array_equal(unpacked(drawn["y"]), expected)


def test_map_is_log2_of_measured_over_predicted(
    states: dict[str, RunState], written: WrittenRun
) -> None:
    drawn = rotation_map(states["one"], "a.bias", LIGHT)
    Figure(drawn.figure)
    trace = drawn.figure["data"][0]
    frame = open_run(written.path).layers(["angular_update", "pred_angular_update"])
    quotient = frame["angular_update"] / frame["pred_angular_update"]
    ratio = quotient.to_numpy().reshape(40, 3).T
    assert trace["y"] == ["a.weight", "a.bias", "b.norm.bias"]
    np.testing.assert_allclose(unpacked(trace["customdata"]), ratio, rtol=1e-5)
    clipped = np.clip(np.log2(ratio), -CLIP, CLIP)
    np.testing.assert_allclose(unpacked(trace["z"]), clipped, atol=1e-5)
    assert drawn.figure["layout"]["shapes"][0]["y0"] == 0.5
    assert drawn.note == ""


def test_map_without_predictions_says_why(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run(tmp_path / "run", predicted=False)
    run.write(10)
    state = RunState(open_run(run.path))
    state.refresh()
    drawn = rotation_map(state, None, LIGHT)
    Figure(drawn.figure)
    assert "Mystery is unknown" in drawn.note
    trace = drawn.figure["data"][0]
    angles = open_run(run.path).layers("angular_update")["angular_update"]
    expected = angles.to_numpy().reshape(10, 3).T
    np.testing.assert_allclose(unpacked(trace["customdata"]), expected, rtol=1e-6)


def test_map_of_a_run_without_rows(tmp_path: Path, make_run: MakeRun) -> None:
    state = RunState(open_run(make_run(tmp_path / "run").path))
    state.refresh()
    Figure(rotation_map(state, None, LIGHT).figure)
    assert not traces(layer_plot({}, "*", "grad_l2", LIGHT))
    traces(layer_plot({"run": state}, "*", "grad_l2", LIGHT))
    traces(count_plot({"run": state}, "dead", LIGHT))


def test_long_curves_are_thinned_for_the_screen() -> None:
    steps = np.arange(100_000)
    figure = curves_figure([Curve("x", "#000000", steps, np.sin(steps))], LIGHT)
    assert len(unpacked(figure["data"][0]["y"])) <= 1000


def test_logarithmic_only_where_something_is_positive() -> None:
    for values, kind in (([1.0, 100.0], "log"), ([0.0, -1.0], "linear")):
        curve = Curve("x", "#000000", np.arange(2), np.array(values))
        figure = curves_figure([curve], LIGHT, log=True)
        assert figure["layout"]["yaxis"]["type"] == kind


def test_zooming_into_a_run_that_is_shown_whole_changes_nothing(
    states: dict[str, RunState],
) -> None:
    for window in (None, (10, 20)):
        drawn = [
            layer_plot(states, "a.weight", "weight_norm", LIGHT, window),
            scalar_plot(states, "loss", LIGHT, log=False, window=window),
            lr_plot(states, LIGHT, window),
            count_plot(states, "dead", LIGHT, window),
        ]
        if window is None:
            whole = drawn
    assert drawn == whole
