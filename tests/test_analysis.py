"""Questions to a run, against the same computed from its frames or closed forms."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dynoscope
from dynoscope import analysis
from dynoscope.errors import DynoscopeError
from dynoscope.optim import Lion

DEEP = ["0.weight", "3.weight", "6.weight", "9.weight"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dynoscope.Run:
    """Four linear layers before BatchNorms, so that each has an effective decay."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    widths = [12, 16, 16, 16, 16]
    layers = [
        layer
        for before, after in itertools.pairwise(widths)
        for layer in (nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
    ]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.5)
    with dynoscope.watch(net, optimizer, run=folder, quiet=True) as scope:
        for _ in range(30):
            inputs = torch.randn(64, 12)
            loss = (net(inputs)[:, :12] - inputs).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scope.log(loss=loss)
    return dynoscope.open_run(folder)


def test_balance(run: dynoscope.Run) -> None:
    found = analysis.balance(run, slice(10, None))
    columns = ["angular_update", "effective_weight_decay", "weight_decay"]
    rows = run.layers(columns, DEEP, slice(10, None))
    means = rows.groupby("layer")[columns].mean().to_numpy(dtype=float)
    angles, effective, decay = means.T
    assert found.layers == len(DEEP)
    assert found.layers_cv == pytest.approx(angles.std() / angles.mean())
    assert found.layers_log_std == pytest.approx(np.log(angles).std())
    neurons = run.neurons("angular_update_cv", steps=slice(10, None))
    assert found.neurons_cv == pytest.approx(neurons["angular_update_cv"].mean())
    cause, log_angles = np.log(effective / decay), np.log(angles)
    assert np.isfinite(cause).all()
    correlation = np.corrcoef(cause, log_angles)[0, 1]
    assert found.explained == pytest.approx(correlation**2)


def test_balance_without_a_cause(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.RMSprop(net.parameters())  # no theory
    with dynoscope.watch(net, optimizer, run=tmp_path / "run", quiet=True):
        for _ in range(3):
            net(torch.ones(1, 3)).sum().backward()
            optimizer.step()
    found = analysis.balance(dynoscope.open_run(tmp_path / "run"))
    assert found.layers == 1
    assert found.layers_cv == 0
    assert math.isnan(found.explained)


def test_sharpness(run: dynoscope.Run) -> None:
    found = analysis.sharpness(run, steps=slice(20, None))
    losses = run.scalars("loss", slice(20, None))["value"].to_numpy()
    level = np.maximum(losses[1:], losses[:-1]).mean()
    assert found.loss == pytest.approx(level)
    assert found.lr == pytest.approx(3e-3)
    assert found.sharpness_bound == pytest.approx(8 * level / 3e-3**2)
    rows = run.layers(["weight_norm", "grad_l2"], steps=slice(20, None))
    whole = rows.drop(columns="layer").set_index("step").pow(2).groupby("step").sum()
    products = whole["weight_norm"] * whole["grad_l2"]
    assert found.effective_grad_norm == pytest.approx(products.mean() ** 0.5, rel=1e-5)
    with pytest.raises(DynoscopeError, match="'accuracy' was logged 0 times"):
        analysis.sharpness(run, "accuracy")


def test_box(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(30, 20)
    with torch.no_grad():
        net.weight[3, 4] = 1.5  # the box is 1
        net.bias.zero_()
    optimizer = Lion(net.parameters(), lr=0.02, weight_decay=1.0)
    with dynoscope.watch(net, optimizer, run=tmp_path / "run", every=1, quiet=True):
        for _ in range(250):
            net.zero_grad()
            net(torch.randn(8, 30)).square().sum().backward()
            optimizer.step()
    found = analysis.box(dynoscope.open_run(tmp_path / "run")).to_dict("index")
    weight, bias = found["weight"], found["bias"]
    assert weight["weight_max"] == pytest.approx(1.5)
    expected = math.log(0.01 / 0.5) / math.log(0.98)
    assert weight["predicted"] == pytest.approx(expected, abs=1)
    assert 0 < weight["seen"] <= weight["predicted"]
    assert (bias["predicted"], bias["seen"]) == (0, 0)


def test_rate(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 1)
    data = [(torch.randn(20, 6), torch.randn(20, 1))]
    optimizer = Lion(net.parameters(), lr=0.01, weight_decay=0.1)

    def loss_of(
        model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        loss: torch.Tensor = (model(batch[0]) - batch[1]).square().mean()
        return loss

    with dynoscope.watch(net, optimizer, run=tmp_path / "run", quiet=True) as scope:
        for _ in range(5):
            scope.measure_full_gradient(data, loss_of)
            net.zero_grad()
            loss_of(net, data[0]).backward()
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    found = analysis.rate(run)
    norms = run.full_gradients("grad_l1", layer="*")["grad_l1"].to_numpy()
    means = np.cumsum(norms) / np.arange(1, 6)
    np.testing.assert_allclose(found["grad_l1_mean"], means)
    constants = means * np.arange(1, 6) ** 0.25 / np.sqrt(7)
    np.testing.assert_allclose(found["constant"], np.maximum.accumulate(constants))


def test_rate_without_a_full_gradient(run: dynoscope.Run) -> None:
    with pytest.raises(DynoscopeError, match="holds no full gradient"):
        analysis.rate(run)
