"""Lion's constrained problem, against numbers computed by hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import dynoscope
from dynoscope.errors import MeasurementError
from dynoscope.hooks import constraint_rows, find_watched
from dynoscope.optim import L1, Huber, Lion, LionK, Lp, Rotational, Threshold, TopK

WEIGHT_DECAY = 0.4


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))


def stepped(optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    noise = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.randn(param.shape, generator=noise)
        optimizer.step()


def measured(
    net: nn.Module, optimizer: torch.optim.Optimizer, loss: float | None = None
) -> pd.DataFrame:
    rows = constraint_rows(find_watched(net, optimizer), loss)
    return pd.DataFrame(dict(rows.columns)).set_index("layer")


def whole(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def test_lion_is_lion_k_of_l1() -> None:
    frames = []
    for make in (Lion, lambda *args, **kw: LionK(*args, k=L1(), **kw)):
        net = model()
        optimizer = make(net.parameters(), lr=0.01, weight_decay=WEIGHT_DECAY)
        stepped(optimizer)
        frames.append(measured(net, optimizer, loss=2.0))
    pd.testing.assert_frame_equal(frames[0], frames[1])


def test_lion_by_hand() -> None:
    net = model()
    optimizer = Lion(net.parameters(), lr=0.01, weight_decay=WEIGHT_DECAY)
    stepped(optimizer)
    found = measured(net, optimizer, loss=2.0)
    weights = {name: param.detach().double() for name, param in net.named_parameters()}
    for name, param in net.named_parameters():
        row, weight = found.loc[name], weights[name]
        momentum = -optimizer.state[param]["exp_avg"].double()
        assert row["constraint_norm"] == pytest.approx(
            WEIGHT_DECAY * weight.abs().max().item()
        )
        assert row["momentum_k"] == pytest.approx(momentum.abs().sum().item())
        assert row["momentum_weight"] == pytest.approx((momentum * weight).sum().item())
        assert row["conjugate"] == 0
    assert found["lyapunov"].isna().sum() == len(found) - 1
    momenta = whole([-optimizer.state[p]["exp_avg"] for p in net.parameters()])
    inner = float(momenta @ whole(list(weights.values())))
    eta = 0.01 / (1 - 0.01 * WEIGHT_DECAY)
    coupling = eta * 0.9 / (eta * WEIGHT_DECAY * 0.1 + 0.01)
    height = 2.0 + coupling * (float(momenta.abs().sum()) - WEIGHT_DECAY * inner)
    assert found.loc["*", "lyapunov"] == pytest.approx(height)


def test_outside_of_the_box() -> None:
    net = model()
    optimizer = Lion(net.parameters(), weight_decay=100.0)
    found = measured(net, optimizer, loss=1.0)
    assert (found["constraint_norm"] > 1).all()
    assert np.isinf(found["conjugate"]).all()
    assert found.loc["*", "lyapunov"] == math.inf


@pytest.mark.parametrize("k", [Lp(1.5), Threshold(0.1), TopK(2), Huber(0.5)])
@pytest.mark.parametrize("per", ["tensor", "model"])
def test_every_k_has_its_own_norm(k: Any, per: Any) -> None:
    net = model()
    optimizer = LionK(
        net.parameters(), lr=0.01, weight_decay=WEIGHT_DECAY, k=k, per=per
    )
    stepped(optimizer)
    found = measured(net, optimizer)
    parts = [param.detach().double() for param in net.parameters()]
    if per == "model":
        assert found.index.tolist() == ["*"]
        norm = k.gauge(WEIGHT_DECAY * whole(parts))
    else:
        assert len(found) == len(parts) + 1
        norm = max(k.gauge(WEIGHT_DECAY * part) for part in parts)
    assert found.loc["*", "constraint_norm"] == pytest.approx(float(norm))
    assert found["lyapunov"].isna().all()


def test_height_falls_on_a_full_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 1, bias=False)
    inputs, targets = torch.randn(40, 6), torch.randn(40, 1)
    optimizer = Lion(net.parameters(), lr=1e-3, weight_decay=0.5)
    with dynoscope.watch(net, optimizer, run=tmp_path / "run", quiet=True) as scope:
        for _ in range(300):
            loss = (net(inputs) - targets).square().mean()
            scope.measure_constraint(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = dynoscope.open_run(tmp_path / "run").constraint(layer="*")
    assert found["step"].tolist() == list(range(300))
    heights = found["lyapunov"].to_numpy()
    # but for what a step of this length may cost
    assert (np.diff(heights) < 1e-3).all()
    assert heights[-1] < heights[0] - 0.1


def test_groups_that_differ_have_no_height() -> None:
    net = model()
    first, second = (list(layer.parameters()) for layer in net.children())
    groups: list[dict[str, Any]] = [
        {"params": first},
        {"params": second, "weight_decay": 0.1},
    ]
    found = measured(net, Lion(groups, weight_decay=0.4), loss=1.0)
    assert found["lyapunov"].isna().all()
    assert found["weight_decay"].isna().tolist() == [False] * 4 + [True]


class GradientAlone:
    def grad(self, x: Tensor) -> Tensor:
        return x


def test_bad_input() -> None:
    net = model()
    for optimizer, said in (
        (torch.optim.AdamW(net.parameters()), "AdamW solves no constrained problem"),
        (Rotational(Lion(net.parameters())), "Rotational solves no constrained"),
        (LionK(net.parameters(), k=GradientAlone()), "has no value and no gauge"),
    ):
        with pytest.raises(MeasurementError, match=said):
            measured(net, optimizer)
