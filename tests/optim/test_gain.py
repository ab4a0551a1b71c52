from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from dynoscope.optim import Rotational, add_gain, fold_gain
from dynoscope.optim._turned_blocks import PER, Per


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )


IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("per", PER)
def test_starts_as_nothing(per: Per) -> None:
    model = network()
    expected = model(IMAGES)
    gains = add_gain(model, per=per)
    assert torch.equal(model(IMAGES), expected)
    rows = [4, 10] if per == "row" else [1, 1]
    assert [gain.numel() for gain in gains] == rows


@pytest.mark.parametrize("per", PER)
def test_learns_and_folds(per: Per) -> None:
    model = network()
    keys = sorted(model.state_dict())
    gains = add_gain(model, per=per)
    rest = [p for p in model.parameters() if all(p is not gain for gain in gains)]
    groups: list[dict[str, Any]] = [
        {"params": rest},
        {"params": gains, "rotational": False, "weight_decay": 0.0},
    ]
    optimizer = Rotational(torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1))
    norms = [p.norm().item() for p in rest if p.ndim > 1]
    for _ in range(10):
        loss = functional.cross_entropy(model(IMAGES), torch.arange(5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert [p.norm().item() for p in rest if p.ndim > 1] == pytest.approx(norms)
    assert all((gain != 1).all() for gain in gains)
    trained = model(IMAGES)
    assert fold_gain(model) is model
    assert sorted(model.state_dict()) == keys
    torch.testing.assert_close(model(IMAGES), trained)


def test_chosen_layers_alone() -> None:
    model = network()
    gains = add_gain(model, chosen=lambda name, layer: name == "3")
    assert [gain.shape for gain in gains] == [(10, 1)]
    assert isinstance(model[3].weight, torch.Tensor)
    assert "0.weight" in model.state_dict()


def test_a_layer_by_itself() -> None:
    layer = nn.ConvTranspose2d(3, 4, 2)
    (gain,) = add_gain(layer, per="tensor")
    with torch.no_grad():
        gain.fill_(2.0)
    expected = layer.weight.detach().clone()
    fold_gain(layer)
    assert torch.equal(layer.weight, expected)


def test_bad_input() -> None:
    model = network()
    with pytest.raises(ValueError, match="per must be one of 'row', 'tensor'"):
        add_gain(model, per="column")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no linear or convolutional one.*chosen="):
        add_gain(nn.LayerNorm(3))
    add_gain(model)
    with pytest.raises(ValueError, match="'0' has a gain already; fold it first"):
        add_gain(model)
