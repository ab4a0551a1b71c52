"""Full gradients against slow float64 ones and closed forms."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from dynoscope.errors import MeasurementError
from dynoscope.hooks.full_gradient import full_gradient
from tests.hooks.training import NoisyDigits, batch_loss, everything, fresh

DATA = NoisyDigits(90)
SIZES = (32, 32, 17, 9)


def batches_of(sizes: tuple[int, ...], dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    parts = zip(DATA.images.split(sizes), DATA.labels.split(sizes), strict=True)
    return [(images.to(dtype), labels) for images, labels in parts]


def slow(
    model: nn.Module, batches: list[tuple[Tensor, ...]]
) -> tuple[float, dict[str, Tensor], dict[str, float]]:
    """Mean loss, mean gradients, traces of the covariance; float64, two passes."""
    model = copy.deepcopy(model).double()
    total, losses, gradients = 0, [], []
    for images, labels in batches:
        model.zero_grad()
        loss = batch_loss(model, (images.double(), labels))
        loss.backward()
        total += len(labels)
        losses.append(len(labels) * loss.item())
        gradients.append((len(labels), _grads(model)))
    means = {
        name: torch.stack([count * found[name] for count, found in gradients]).sum(0)
        / total
        for name, _ in model.named_parameters()
    }
    noise = {
        name: sum(
            count * (found[name] - mean).square().sum().item()
            for count, found in gradients
        )
        / (len(batches) - 1)
        for name, mean in means.items()
    }
    return sum(losses) / total, means, noise


def _grads(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_a_slow_float64_one(dtype: torch.dtype, tmp_path: Path) -> None:
    model, optimizer = fresh(dtype)
    model.drop.p = 0.0
    batches = batches_of(SIZES, dtype)
    loss, means, noise = slow(model, batches)
    found = full_gradient(model, list(model.parameters()), batches, batch_loss)
    for gradient, mean in zip(found.gradients, means.values(), strict=True):
        assert gradient.dtype == torch.float64
        assert (gradient - mean).abs().max() <= 1e-6 * mean.abs().max()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        frame = scope.measure_full_gradient(batches, batch_loss).set_index("layer")
    for name, g in means.items():
        check(frame.loc[name], loss, model.get_parameter(name), g, noise[name])
    whole = frame.loc["*"]
    everywhere = torch.cat([g.flatten() for g in means.values()])
    weights = nn.utils.parameters_to_vector(model.parameters())
    check(whole, loss, weights, everywhere, sum(noise.values()))


def check(row: Any, loss: float, weight: Tensor, g: Tensor, noise: float) -> None:
    """One row against the slow gradient, to 1e-6."""
    l1, l2 = g.abs().sum().item(), g.norm().item()
    weight = weight.detach().double()
    expected = {
        "loss": loss,
        "grad_l1": l1,
        "grad_l2": l2,
        "grad_ratio": l1 / l2,
        "grad_density": l1 / l2 / g.numel() ** 0.5,
        "noise_scale": noise / l2**2,
        "kkt_gap": 0.1 * (weight * g).sum().item() + l1,
        "weight_max": weight.abs().max().item(),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-6), name
    assert (row["numel"], row["batches"], row["samples"]) == (g.numel(), 4, 90)
    assert row["feasible"]
    assert row["weight_decay"] == 0.1


def test_does_not_depend_on_how_samples_are_batched() -> None:
    model, _ = fresh(torch.float64)
    model.eval()
    parameters = list(model.parameters())
    for sizes in ((90,), (1, 88, 1)):
        found = full_gradient(
            model, parameters, batches_of(sizes, torch.float64), batch_loss
        )
        _, means, _ = slow(model, batches_of((45, 45), torch.float64))
        for gradient, mean in zip(found.gradients, means.values(), strict=True):
            assert (gradient - mean).abs().max() <= 1e-13
        assert np.isnan(found.noise).all() == (len(sizes) == 1)


def test_noise_scale_of_a_linear_model() -> None:
    # With x ~ N(0, I) in d dimensions and labels of a linear model e away plus
    # noise s, a sample's gradient is (e.x + s z) x: the mean is e, the trace of
    # the covariance (d + 1) |e|^2 + s^2 d.
    d, s, count = 5, 0.7, 60_000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, d, generator=generator, dtype=torch.float64)
    z = torch.randn(count, generator=generator, dtype=torch.float64)
    model = nn.Linear(d, 1, bias=False, dtype=torch.float64)
    e = model.weight.detach()[0]
    sizes = [4, 16, 40] * 1000
    batches = list(zip(x.split(sizes), (s * z).split(sizes), strict=True))
    found = full_gradient(
        model,
        [model.weight],
        batches,
        lambda m, batch: (m(batch[0])[:, 0] - batch[1]).square().mean() / 2,
    )
    norm_sq = e.square().sum().item()
    assert found.noise[0] == pytest.approx((d + 1) * norm_sq + s**2 * d, rel=0.03)
    assert found.gradients[0][0].tolist() == pytest.approx(e.tolist(), abs=0.02)
    # One sample a batch is the textbook covariance, exactly.
    few = [(x[k : k + 1], s * z[k : k + 1]) for k in range(300)]
    alone = full_gradient(
        model,
        [model.weight],
        few,
        lambda m, batch: (m(batch[0])[:, 0] - batch[1]).square().mean() / 2,
    )
    samples = ((x[:300] @ e - s * z[:300])[:, None] * x[:300]).numpy()
    textbook = np.trace(np.cov(samples, rowvar=False))
    assert alone.noise[0] == pytest.approx(textbook, rel=1e-12)


class Halves(nn.Module):
    """Two numbers in two parameter groups, one that nothing depends on, one fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([3.0]))
        self.b = nn.Parameter(torch.tensor([-1.0, 0.0]))
        self.unused = nn.Parameter(torch.ones(2))
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.a * x).mean() + (self.b.sum() * x).mean() ** 2


def halves() -> tuple[Halves, torch.optim.Optimizer]:
    model = Halves()
    groups = [
        {"params": [model.a], "weight_decay": 0.5},
        {"params": [model.b, model.unused, model.fixed], "weight_decay": 0.25},
    ]
    return model, torch.optim.SGD(groups, lr=0.1)


def test_groups_unused_and_fixed_parameters(tmp_path: Path) -> None:
    model, optimizer = halves()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        returned = scope.measure_full_gradient(
            [torch.full((4,), 2.0)], lambda model, batch: model(batch)
        )
    frame = returned.set_index("layer")
    assert frame.index.tolist() == ["a", "b", "unused", "*"]  # the fixed one is not
    # dL/da = 2, dL/db = 2 (-2) 2 = -8 for both; a is outside of its box of 2.
    assert frame["grad_l1"].tolist() == [2.0, 16.0, 0.0, 18.0]
    assert frame["grad_l2"].tolist() == [2.0, 128**0.5, 0.0, 132**0.5]
    assert frame["kkt_gap"].tolist() == [0.5 * 6 + 2, 0.25 * 8 + 16, 0.0, 5.0 + 18.0]
    assert frame["feasible"].tolist() == [False, True, True, False]
    assert frame["weight_decay"].tolist()[:3] == [0.5, 0.25, 0.25]
    assert np.isnan(frame["weight_decay"]["*"])
    assert np.isnan(frame["noise_scale"]).all()
    assert np.isnan(frame["grad_ratio"]["unused"])
    assert frame["loss"].tolist() == [10.0] * 4
    read = dynoscope.open_run(tmp_path / "run").full_gradients()
    pd.testing.assert_frame_equal(read, returned)


def test_sparse_gradients() -> None:
    model = nn.Embedding(5, 3, sparse=True)
    found = full_gradient(
        model,
        [model.weight],
        [torch.tensor([0, 1]), torch.tensor([1, 4])],
        lambda m, batch: m(batch).sum(1).mean(),
    )
    assert found.gradients[0].sum(1).tolist() == [0.75, 1.5, 0.0, 0.0, 0.75]


def test_batches_limits_and_samples_tells(tmp_path: Path) -> None:
    model, optimizer = halves()
    texts = [["a", "b", "c"], ["d"], ["never"]]
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        frame = scope.measure_full_gradient(
            iter(texts),
            lambda model, batch: model(torch.full((1,), float(len(batch)))),
            2,
            samples=len,
        )
    assert frame["samples"].tolist() == [4] * 4
    # The mean of 3 a for three samples and 1 a for one.
    assert frame["grad_l1"][0] == (3 * 3 + 1) / 4


def test_a_loss_that_is_not_finite_is_recorded(tmp_path: Path) -> None:
    model, optimizer = halves()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        frame = scope.measure_full_gradient(
            [torch.tensor([np.nan])], lambda model, batch: model(batch)
        )
    assert frame["loss"].isna().all()
    assert np.isnan(frame["grad_l2"][3])


ONE = [(DATA.images[:8], DATA.labels[:8])]
BAD: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "empty": ([], batch_loss, {}, "no batch to measure: the list is empty"),
    "spent": (iter([]), batch_loss, {}, "is an iterator that is spent"),
    "batch": (ONE[0][0], batch_loss, {}, r"a Tensor is not a loader.*\[batch\]"),
    "none": (None, batch_loss, {}, "a NoneType is not a loader"),
    "zero": (ONE, batch_loss, {"batches": 0}, "batches=0 leaves nothing"),
    "vector": (
        ONE,
        lambda m, b: functional.cross_entropy(m(b[0]), b[1], reduction="none"),
        {},
        r"tensor of shape \(8,\).*loss.mean\(\)",
    ),
    "number": (ONE, lambda m, b: batch_loss(m, b).item(), {}, "returned a float"),
    "nothing": (ONE, lambda m, b: None, {}, "returned a NoneType"),
    "count": (ONE, lambda m, b: (m(b[0]) > 0).sum(), {}, "torch.int64"),
    "detached": (
        ONE,
        lambda m, b: batch_loss(m, b).detach(),
        {},
        "none of the watched",
    ),
    "elsewhere": (
        ONE,
        lambda m, b: torch.ones((), requires_grad=True) * 2,
        {},
        "none of the watched",
    ),
    "sizeless": ([["a", "b"]], batch_loss, {}, "pass samples="),
    "sampleless": ([(torch.ones(0, 1, 8, 8),)], batch_loss, {}, "has 0 samples"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_and_changes_nothing(case: str, tmp_path: Path) -> None:
    loader, loss_fn, options, message = BAD[case]
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        before = everything(model, optimizer)
        with pytest.raises(MeasurementError, match=message):
            scope.measure_full_gradient(loader, loss_fn, **options)
        assert everything(model, optimizer) == before
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "finished"
    assert not len(run.full_gradients())


def test_errors_of_the_loss_pass_unchanged(tmp_path: Path) -> None:
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        before = everything(model, optimizer)
        with pytest.raises(ZeroDivisionError):
            scope.measure_full_gradient(
                ONE * 2, lambda m, b: batch_loss(m, b) * (1 // 0)
            )
        assert everything(model, optimizer) == before


def test_after_the_block_nothing_is_measured(tmp_path: Path) -> None:
    model, optimizer = fresh()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True) as scope:
        pass
    with pytest.raises(MeasurementError, match=r"inside the dynoscope\.watch block"):
        scope.measure_full_gradient(ONE, batch_loss)
