"""Measuring on demand, anywhere in a training, does not change it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import dynoscope
from dynoscope.hooks.frozen import frozen, holding
from tests.hooks.training import (
    NoisyDigits,
    batch_loss,
    everything,
    fresh,
    train_with,
)

LOADERS: dict[str, dict[str, Any]] = {
    "global": {},
    "generator": {"generator": 7},
    "workers": {"num_workers": 1, "persistent_workers": True},
}
PLACES = ["before", "forward", "backward", "step", "after"]
EVALUATION = NoisyDigits(16)


def loader_of(kind: str) -> DataLoader[Any]:
    options = dict(LOADERS[kind])
    if "generator" in options:
        options["generator"] = torch.Generator().manual_seed(options["generator"])
    return DataLoader(NoisyDigits(), batch_size=32, shuffle=True, **options)


def fixed_loss(model: nn.Module) -> torch.Tensor:
    return functional.cross_entropy(model(EVALUATION.images), EVALUATION.labels)


def trained(kind: str, run: Path, *, measured: bool) -> tuple[list[float], bytes]:
    """Losses and last state, measured at the first visit of every place or not."""
    model, optimizer = fresh()
    places = list(PLACES)
    with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True) as scope:

        def measure(place: str, model: nn.Module, loader: DataLoader[Any]) -> None:
            if not measured or place not in places:
                return
            places.remove(place)
            before = everything(model, optimizer)
            scope.measure_full_gradient(loader, batch_loss)
            assert everything(model, optimizer) == before
            scope.probe_scale_invariance(fixed_loss)
            assert everything(model, optimizer) == before
            scope.count_dead_channels(loader, batch_loss, batches=1)
            assert everything(model, optimizer) == before

        losses = train_with(measure, model, optimizer, loader_of(kind))
    assert not measured or not places
    return losses, everything(model, optimizer)


@pytest.mark.parametrize("kind", LOADERS)
def test_training_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    alone = trained(kind, tmp_path / "alone", measured=False)
    measured = trained(kind, tmp_path / "measured", measured=True)
    assert measured == alone
    run = dynoscope.open_run(tmp_path / "measured")
    steps = [0, 0, 0, 1, 6]  # by PLACES
    assert run.full_gradients("loss", "*")["step"].tolist() == steps
    assert run.invariance("conv.weight")["step"].tolist() == steps
    assert run.activity()["step"].tolist() == steps


def test_whatever_a_block_does_is_undone() -> None:
    model, optimizer = fresh()
    batch_loss(model, (EVALUATION.images, EVALUATION.labels)).backward()
    model.norm.eval()
    before, running = everything(model, optimizer), model.running
    generator = torch.Generator().manual_seed(1)
    state = generator.get_state()

    def meddle() -> None:
        with frozen(model, [generator]):
            model.train()
            fixed_loss(model).backward()
            model.head.eval()
            model.norm.running_mean.fill_(7)  # type: ignore[union-attr]
            model.register_buffer("new", torch.ones(2))
            torch.rand(3, generator=generator)
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        meddle()
    assert everything(model, optimizer) == before
    assert model.running is running
    assert torch.equal(generator.get_state(), state)


def test_the_same_random_numbers_in_every_block() -> None:
    model, _ = fresh()
    drawn = []
    for _ in range(2):
        with frozen(model):
            drawn.append(fixed_loss(model).item())
    assert drawn[0] == drawn[1] != fixed_loss(model.eval()).item()


def test_gradients_can_be_taken_in_any_mode() -> None:
    model, _ = fresh()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode(), frozen(model):
            assert fixed_loss(model).requires_grad


def test_casts_of_weights_are_neither_used_nor_left() -> None:
    model, _ = fresh()
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        before = fixed_loss(model).item()  # autocast keeps what it cast
        with frozen(model), holding(model.head.weight, model.head.weight * 4):
            assert fixed_loss(model).item() != before
        assert fixed_loss(model).item() == before
    with torch.autocast("cpu", torch.bfloat16):
        with frozen(model), holding(model.head.weight, model.head.weight * 4):
            fixed_loss(model)
        assert fixed_loss(model).item() == before


def test_a_held_tensor_comes_back_in_its_place() -> None:
    weight = nn.Parameter(torch.ones(3))
    loss = (weight**2).sum()
    place, version = weight.data_ptr(), weight._version
    with holding(weight, torch.full((3,), 5.0)):
        assert weight.sum() == 15
    assert (weight.data_ptr(), weight._version) == (place, version)
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
