"""Scale invariance is found where it is, and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from dynoscope.errors import MeasurementError
from dynoscope.hooks import find_watched, invariance_rows
from tests.hooks.training import DropNet, everything, fresh
from tests.networks import Digits

DATA = Digits(128)
torch.manual_seed(3)
IMAGES, LABELS = DATA.draw()


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def layered() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 48, bias=False),
        nn.LayerNorm(48),
        nn.Tanh(),
        nn.Linear(48, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


class Residual(nn.Module):
    """A branch that a large scale would let take over; LayerNorm sees the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(64, 24)
        self.before = nn.LayerNorm(24)
        self.branch = nn.LSTM(24, 24, batch_first=True)
        self.after = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        entered = self.enter(images.flatten(1))
        taken = self.branch(self.before(entered).unsqueeze(1))[0][:, 0]
        scores: Tensor = self.head(self.after(entered + taken))
        return scores


NETWORKS: dict[str, tuple[Callable[[], nn.Module], dict[str, str]]] = {
    "conv": (
        convolutional,
        {"0.weight": "row", "3.weight": "row", "0.bias": "unseen"},
    ),
    "layered": (layered, {"1.weight": "matrix"}),
    # One step of an LSTM does not use what it kept: there is nothing of it yet.
    "residual": (Residual, {"branch.weight_hh_l0": "unseen"}),
}


def loss_of(model: nn.Module) -> Tensor:
    dtype = next(model.parameters()).dtype
    return functional.cross_entropy(model(IMAGES.to(dtype)), LABELS)


@pytest.mark.parametrize("steps", [10, 150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("network", NETWORKS)
def test_granularity(
    network: str, dtype: torch.dtype, steps: int, tmp_path: Path
) -> None:
    make, invariant = NETWORKS[network]
    torch.manual_seed(0)
    model = make().to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        for _ in range(steps):
            images, labels = DATA.draw()
            functional.cross_entropy(model(images.to(dtype)), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        found = scope.probe_scale_invariance(loss_of)
    expected = {name: "none" for name, _ in model.named_parameters()} | invariant
    assert dict(zip(found["layer"], found["granularity"], strict=True)) == expected
    read = dynoscope.open_run(tmp_path / "run").invariance()
    pd.testing.assert_frame_equal(read, found)
    assert (read["step"] == steps).all()


def test_half_precision_by_autocast(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = convolutional()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def rounded(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(IMAGES)
        return functional.cross_entropy(scores.float(), LABELS)

    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        found = scope.probe_scale_invariance(rounded).set_index("layer")
    wanted = {"0.weight": "row", "3.weight": "row", "8.weight": "none"}
    assert found["granularity"].loc[list(wanted)].to_dict() == wanted


def probe(model: nn.Module, loss: Callable[[Any], Tensor]) -> pd.DataFrame:
    watched = find_watched(model, torch.optim.SGD(model.parameters(), lr=0.1))
    rows = invariance_rows(watched, loss)
    return pd.DataFrame(dict(rows.columns)).set_index("layer")


def test_changes_are_those_of_the_loss() -> None:
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
    # L = w1 + 2 w2 = 11: 5.5, 22 and 44 when scaled; -11 is the farther turn.
    row = probe(model, lambda m: m.weight[0, 0] + 2 * m.weight[0, 1]).loc["weight"]
    assert row["loss"] == 11
    assert row["matrix_change"] == 3
    assert row["turn_change"] == 2
    assert np.isnan(row["row_change"])
    assert row["granularity"] == "none"


def test_zero_has_no_scale_and_numbers_have_a_sign() -> None:
    model = nn.ParameterDict(
        {
            "zero": nn.Parameter(torch.zeros(3)),
            "sign": nn.Parameter(torch.tensor(2.0)),
            "signs": nn.Parameter(torch.tensor([[1.5], [-2.5], [0.5]])),
        }
    )
    found = probe(
        model,
        lambda m: 5 + m["zero"].sum() + m["sign"].sign() + m["signs"].sign().sum(),
    )
    assert found["granularity"].to_dict() == {
        "zero": "none",
        "sign": "matrix",
        "signs": "row",
    }
    assert np.isnan(found["matrix_change"]["zero"])


class Weights(nn.Module):
    """Two rows, and a loss of them."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(4, 32, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(rows.to(dtype))
        self.target = torch.randn(4, 32, generator=generator, dtype=dtype)


@settings(max_examples=25, deadline=None)
@given(
    epsilon=st.floats(0, 0.02),
    whole=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_an_epsilon_does_not_hide_invariance(
    epsilon: float, whole: bool, dtype: torch.dtype
) -> None:
    def loss(model: Weights) -> Tensor:
        squares = model.weight.square()
        sums = squares.sum() if whole else squares.sum(1, keepdim=True)
        unit = model.weight / (sums + epsilon * 32).sqrt()  # a row's sum is about 32
        return 3 + (unit * model.target).sum()

    wanted = "matrix" if whole else "row"
    assert probe(Weights(dtype), loss).loc["weight", "granularity"] == wanted


@settings(max_examples=25, deadline=None)
@given(
    strength=st.floats(-6, 6),
    shape=st.sampled_from(["logistic", "tanh", "residual", "norm", "cosine"]),
)
def test_a_weak_dependence_is_not_taken_for_invariance(
    strength: float, shape: str
) -> None:
    # Losses that flatten, vanish or turn round as the weights grow.
    shapes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "logistic": lambda w, t: functional.softplus(-(w * t).sum() / 4),
        "tanh": lambda w, t: 1 + torch.tanh((w * t).sum(1) / 4).mean(),
        "residual": lambda w, t: (
            2 + functional.cosine_similarity(t + w, t.flip(0)).sum()
        ),
        "norm": lambda w, t: 1 + (w.norm() - 10).square() + (w * t).sum(),
        "cosine": lambda w, t: 2 + torch.cos((w * t).sum()),
    }

    def loss(model: Weights) -> Tensor:
        weight = model.weight * 2**strength
        return shapes[shape](weight.double(), model.target.double())

    found = probe(Weights(), loss).loc["weight"]
    if found["matrix_change"] > 10 * found["noise"]:
        assert found["granularity"] == "none"


BAD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "vector": (lambda m: m(IMAGES), r"shape \(128, 10\)"),
    "nan": (lambda m: m(IMAGES).sum() * torch.nan, "returned nan"),
    "infinite": (lambda m: m(IMAGES).square().sum() * torch.inf, "returned inf"),
    "number": (lambda m: 3.0, "returned a float"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_losses_are_one_error_and_change_nothing(case: str, tmp_path: Path) -> None:
    loss_fn, message = BAD[case]
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        before = everything(model, optimizer)
        with pytest.raises(MeasurementError, match=message):
            scope.probe_scale_invariance(loss_fn)
        assert everything(model, optimizer) == before
    assert not len(dynoscope.open_run(tmp_path / "run").invariance())


@pytest.mark.parametrize("fatal", [1, 3, 6, 9, 20, 40])
def test_an_error_in_the_middle_leaves_the_model_as_it_was(fatal: int) -> None:
    model, optimizer = fresh()
    watched = find_watched(model, optimizer)
    places = [p.data_ptr() for p in model.parameters()]
    before, calls = everything(model, optimizer), 0

    def loss(model: nn.Module) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == fatal:
            raise KeyboardInterrupt
        return loss_of(model)

    with pytest.raises(KeyboardInterrupt):
        invariance_rows(watched, loss)
    assert everything(model, optimizer) == before
    assert [p.data_ptr() for p in model.parameters()] == places
    assert not any(m._forward_hooks for m in model.modules())


def test_infinite_changes_are_changes() -> None:
    model = nn.Linear(3, 3, bias=False)
    nn.init.constant_(model.weight, 0.5)
    found = probe(model, lambda m: (10 * m.weight.abs().sum()).exp())
    assert found.loc["weight", "granularity"] == "none"
    assert np.isinf(found["matrix_change"]["weight"])


def test_a_batch_norm_that_evaluates_has_a_scale() -> None:
    model = DropNet().eval()
    found = probe(model, loss_of)["granularity"]
    assert found["conv.weight"] == "none"
    assert probe(model.train(), loss_of).loc["conv.weight", "granularity"] == "row"
