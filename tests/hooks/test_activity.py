"""Dead channels counted forward, against a slow count."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import dynoscope
from dynoscope.errors import MeasurementError
from dynoscope.hooks import activity_rows, find_watched
from tests.hooks.training import NoisyDigits, batch_loss, everything, fresh

DATA = NoisyDigits(40)


def count(model: nn.Module, loader: Any, **options: Any) -> pd.DataFrame:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    defaults: dict[str, Any] = {"batches": None, "channel_dim": None}
    rows = activity_rows(
        find_watched(model, optimizer),
        loader,
        lambda model, batch: model(batch),
        **(defaults | options),
    )
    return pd.DataFrame(dict(rows.columns)).set_index("layer")


def rectified() -> nn.Sequential:
    """Of eight channels, 0 is always off, 1 at all but one place, 2 is NaN."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.bias[:3] = torch.tensor([-100.0, 0.0, torch.nan])
        norm.bias[1] = -norm(model[0](DATA.images))[:, 1].max() + 1e-3
    return model


def test_counts_what_is_never_positive(tmp_path: Path) -> None:
    model = rectified().eval()
    with torch.no_grad():
        outputs = torch.cat([model(images) for images in DATA.images.split(16)])
    off = (outputs <= 0).transpose(0, 1).flatten(1).all(1)
    found = count(model, DATA.images.split(16))
    assert found.index.tolist() == ["1", "2"]
    assert found["kind"].tolist() == ["BatchNorm2d", "ReLU"]
    assert found["dead"].tolist() == [off.sum()] * 2
    assert off[0]
    assert not off[2]
    assert (found["channels"] == 8).all()
    assert (found["values"] == 40 * 36).all()
    assert found["batches"].tolist() == [3, 3]


def test_one_positive_value_is_enough() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    nn.init.eye_(model[0].weight)  # type: ignore[arg-type]
    batches = [torch.tensor([[-1.0, 0.0, 1e-30, -1.0]]), torch.eye(4)[3:] - 0.5]
    assert count(model, batches[:1])["dead"].tolist() == [3]
    assert count(model, batches)["dead"].tolist() == [2]
    assert count(model, batches, batches=1)["dead"].tolist() == [3]


class Twice(nn.Module):
    """One activation in two places, of different width; a sequence; a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(3, 6), nn.Linear(6, 2)
        self.act = nn.ReLU()
        self.total = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.narrow(self.act(self.wide(x))))
        total: Tensor = self.total(hidden.sum((1, 2)))
        return total


def test_every_call_of_a_module_is_a_layer() -> None:
    found = count(Twice(), [torch.randn(5, 7, 3), torch.randn(2, 7, 3)])
    assert found["channels"].to_dict() == {"act": 6, "act#2": 2, "total": 1}
    assert found["values"].to_dict() == {"act": 49, "act#2": 49, "total": 7}
    across = count(Twice(), [torch.randn(5, 7, 3)], channel_dim=1)
    assert across["channels"].tolist() == [7, 7, 1]


def test_normalization_knows_its_channels() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Hardswish())
    found = count(model, [torch.randn(4, 2, 9)], channel_dim=1)
    assert found["channels"].tolist() == [3, 3]
    for last in (None, -1):
        found = count(model, [torch.randn(4, 2, 9)], channel_dim=last)
        assert found["channels"].tolist() == [3, 9]


def test_is_recorded_and_leaves_no_trace(tmp_path: Path) -> None:
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        before = everything(model, optimizer)
        batch = (DATA.images, DATA.labels)
        returned = scope.count_dead_channels([batch], batch_loss)
        assert everything(model, optimizer) == before
    assert not any(module._forward_hooks for module in model.modules())
    pd.testing.assert_frame_equal(
        dynoscope.open_run(tmp_path / "run").activity(), returned
    )
    assert returned["layer"].tolist() == ["norm"]


def test_an_error_leaves_no_trace() -> None:
    model = rectified()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = everything(model, optimizer)
    with pytest.raises(RuntimeError, match="channels"):
        count(model, [DATA.images, torch.ones(1, 2, 8, 8)])
    assert everything(model, optimizer) == before
    assert not any(module._forward_hooks for module in model.modules())


def test_bad_input_is_one_error() -> None:
    x = torch.randn(2, 3)
    with pytest.raises(MeasurementError, match=r"no module of this Sequential.*ReLU"):
        count(nn.Sequential(nn.Linear(3, 3), nn.GELU()), [x])
    with pytest.raises(MeasurementError, match="the tuple is empty"):
        count(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), ())
    with pytest.raises(MeasurementError, match=r"'1' gave 5 channels.*channel_dim="):
        count(
            nn.Sequential(nn.Linear(3, 3), nn.ReLU()),
            [torch.randn(4, 5, 3), torch.randn(4, 6, 3)],
            channel_dim=1,
        )
