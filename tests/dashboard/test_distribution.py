from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import nn

import dynoscope
from dynoscope.dashboard.distribution import binned_until, distribution_plot
from dynoscope.dashboard.plots import Plot
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import SCHEMES
from dynoscope.optim import Lion
from dynoscope.reader import Run
from tests.dashboard.runs import WrittenRun
from tests.dashboard.test_plots import unpacked

LIGHT = SCHEMES["light"]
DECAY = 2.0


def state_of(path: Path) -> RunState:
    state = RunState(dynoscope.open_run(path))
    assert state.refresh()
    return state


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Forty steps of Lion, the biases without weight decay."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 5))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0},
    ]
    optimizer = Lion(groups, lr=1e-2, weight_decay=DECAY)
    path = tmp_path_factory.mktemp("runs") / "one"
    with dynoscope.watch(model, optimizer, run=path, histograms=True, quiet=True):
        for _ in range(40):
            model(torch.randn(8, 20)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    return dynoscope.open_run(path)


def axis(figure: dict[str, Any], places: np.ndarray) -> np.ndarray:
    """Values at places of the axis, from any two of its labels."""
    ticks, texts = (figure["layout"]["xaxis"][k] for k in ("tickvals", "ticktext"))
    floor = float(texts[-1]) / 2.0 ** (ticks[-1] - 1)
    away = np.abs(places)
    values: np.ndarray = (
        np.sign(places) * floor * np.where(away < 1, away, 2.0 ** (away - 1))
    )
    return values


def drawn(plot: Plot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of the bars in the layer's unit, their counts, their areas."""
    go.Figure(plot.figure)  # plotly itself accepts it
    (bars,) = [trace for trace in plot.figure["data"] if trace["type"] == "bar"]
    middle, width, height = (unpacked(bars[key]) for key in ("x", "width", "y"))
    ends = np.append(middle - width / 2, middle[-1] + width[-1] / 2)
    areas = height * width
    return axis(plot.figure, ends), unpacked(bars["customdata"]), areas


@pytest.mark.parametrize("quantity", ["weight", "gradient"])
@pytest.mark.parametrize("layer", ["0.weight", "2.bias", "*"])
def test_bars_are_the_recorded_counts(run: Run, layer: str, quantity: str) -> None:
    ends, counts, areas = drawn(
        distribution_plot({"one": state_of(run.folder)}, layer, quantity, LIGHT)
    )
    frame = run.histograms(None if layer == "*" else layer)
    frame = frame[(frame["step"] == frame["step"].max()) & (frame.quantity == quantity)]
    np.testing.assert_allclose(areas, counts / counts.sum(), rtol=1e-9)
    assert counts.sum() == sum(row.sum() for row in frame["counts"])
    # As many elements are below each end of a bar as the recorded bins say.
    for end, below in zip(ends, np.append(0, np.cumsum(counts)), strict=True):
        recorded = sum(
            row.counts[row.edges[1:] <= end + 1e-9 * abs(end)].sum()
            for row in frame.itertuples()
        )
        assert below == recorded
    swallowed = counts[(ends[:-1] < 0) & (ends[1:] > 0)]
    assert swallowed.sum() <= 0.01 * counts.sum() or quantity == "gradient"


def test_earlier_steps_are_fainter_lines(run: Run) -> None:
    state = state_of(run.folder)
    plot = distribution_plot({"one": state}, "0.weight", "weight", LIGHT)
    data = plot.figure["data"]
    steps = [int(trace["name"].removeprefix("step ")) for trace in data]
    assert steps == state.snapshots.spread(4)
    assert steps[0] == 0
    assert steps[-1] == run.histograms()["step"].max()
    opacity = [float(t["line"]["color"].rpartition(",")[2][:-1]) for t in data[:-1]]
    assert opacity == sorted(set(opacity))
    frame = run.histograms("0.weight")
    for trace in data[:-1]:
        step = int(trace["name"].removeprefix("step "))
        row = frame[(frame["step"] == step) & (frame["quantity"] == "weight")].iloc[0]
        places, heights = unpacked(trace["x"]), unpacked(trace["y"])
        share = np.cumsum(heights[:-1] * np.diff(places))
        values = axis(plot.figure, places[1:])
        recorded = [
            row.counts[row.edges[1:] <= v + 1e-9 * abs(v)].sum() for v in values
        ]
        np.testing.assert_allclose(share, np.array(recorded) / 600, rtol=1e-9)


def test_the_box_is_where_weight_decay_is(run: Run) -> None:
    states = {"one": state_of(run.folder)}
    for layer, quantity, limits in (
        ("0.weight", "weight", [-1 / DECAY, 1 / DECAY]),
        ("*", "weight", [-1 / DECAY, 1 / DECAY]),
        ("0.weight", "gradient", []),
        ("0.bias", "weight", []),
    ):
        plot = distribution_plot(states, layer, quantity, LIGHT)
        lines = np.array([line["x0"] for line in plot.figure["layout"]["shapes"]])
        np.testing.assert_allclose(axis(plot.figure, lines), limits, rtol=1e-9)
        assert ("±0.5" in plot.latest[0].words) == bool(limits)


def test_runs_beside_each_other_show_their_newest(
    run: Run, written: WrittenRun
) -> None:
    state = state_of(run.folder)
    plot = distribution_plot({"a": state, "b": state}, "*", "weight", LIGHT)
    assert [trace["name"] for trace in plot.figure["data"]] == ["a", "b"]
    bare = {"bare": state_of(written.path), "b": state}
    plot = distribution_plot(bare, "0.weight", "weight", LIGHT)
    assert [trace["name"] for trace in plot.figure["data"]] == ["b"]
    assert binned_until({"a": state}) != binned_until({"b": state})


def test_nothing_without_histograms(written: WrittenRun) -> None:
    states = {"one": state_of(written.path)}
    assert binned_until(states) == ""
    assert distribution_plot(states, "*", "weight", LIGHT).figure["data"] == []
