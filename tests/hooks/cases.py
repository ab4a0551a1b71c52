"""Loops as people write them, with the models and optimizers that they train."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.hooks.loops import batch, net

STEPS = 4


def loss_of(model: nn.Module) -> Tensor:
    inputs, labels = batch()
    parameter = next(model.parameters())
    return functional.cross_entropy(model(inputs.to(parameter.dtype)).float(), labels)


def plain(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def accumulating(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for index in range(3 * STEPS):
        (loss_of(model) / 3).backward()
        if index % 3 == 2:
            optimizer.step()
            optimizer.zero_grad()


def clipping(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for index in range(STEPS):
        optimizer.zero_grad(set_to_none=index % 2 == 0)
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        nn.utils.clip_grad_value_(model.parameters(), 0.002)
        optimizer.step()


def bfloat16_autocast(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss_of(model).backward()
            optimizer.step()  # not the usual place, but it is found there


def through_a_graph(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(STEPS):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using backward.. with create_graph")
            loss_of(model).backward(create_graph=True)
        assert all(p.grad is None or p.grad.requires_grad for p in model.parameters())
        optimizer.step()


def scheduled(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The scheduler puts a plain function in the place of `optimizer.step`."""
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=STEPS + 1
    )
    assert "step" in vars(optimizer)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        schedule.step()


def without_some_gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for index in range(STEPS):
        optimizer.zero_grad()
        if index != 1:  # then the hooks run, and nothing has a gradient
            loss_of(model).backward()
        if index == 2:
            model.get_submodule("3").zero_grad()
        optimizer.step()


class Words(nn.Module):
    """An embedding with sparse gradients, small enough to stack or not."""

    def __init__(self, words: int = 300) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(words, 160, sparse=True)
        self.words = words

    def forward(self, inputs: Tensor) -> Tensor:
        indices = inputs.abs().mul(1e4).long() % self.words  # some come twice
        scores: Tensor = self.embedding(indices % 7).sum(1)
        return scores[:, :4]


class Waves(nn.Module):
    """Complex weights: a matrix, a vector and one that is walked in pieces."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        kind = torch.complex64
        self.first = nn.Parameter(torch.randn(12, 200, dtype=kind) / 4)
        self.phase = nn.Parameter(torch.randn(200, dtype=kind))
        self.second = nn.Parameter(torch.randn(200, 160, dtype=kind) / 15)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.to(self.first.dtype) @ self.first * self.phase
        scores: Tensor = (hidden @ self.second).abs()
        return scores[:, :4]


def bfloat16() -> nn.Module:
    return net().bfloat16()


def float64() -> nn.Module:
    return net().double()


def mixed_widths() -> nn.Module:
    """Weights of three widths in one model, as quantized or adapted ones have."""
    model = net()
    model[0].bfloat16()
    model[3].bfloat16()
    model[5].double()
    model[1].register_forward_pre_hook(lambda _, args: (args[0].float(),))
    model[3].register_forward_pre_hook(lambda _, args: (args[0].bfloat16(),))
    model[5].register_forward_pre_hook(lambda _, args: (args[0].double(),))
    return model


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, an optimizer for it, and a loop."""

    optimizer: type[torch.optim.Optimizer]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    loop: Callable[[nn.Module, torch.optim.Optimizer], None] = plain
    model: Callable[[], nn.Module] = net

    def build(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = self.model()
        options = {
            k: v.clone() if isinstance(v, Tensor) else v
            for k, v in self.options.items()
        }
        make: Any = self.optimizer
        return model, make(model.parameters(), **options)


SGD, AdamW, Adam = torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam
MOMENTUM = {"momentum": 0.9, "weight_decay": 0.1}

CASES = {
    "accumulation": Case(AdamW, loop=accumulating),
    "clipping": Case(SGD, MOMENTUM, clipping),
    "bfloat16 autocast": Case(AdamW, loop=bfloat16_autocast),
    "create_graph": Case(AdamW, loop=through_a_graph),
    "schedule": Case(SGD, MOMENTUM, scheduled),
    "no gradients": Case(AdamW, loop=without_some_gradients),
    "bfloat16 weights": Case(SGD, MOMENTUM, model=bfloat16),
    "bfloat16 weights, AdamW": Case(AdamW, model=bfloat16),
    "float64 weights": Case(AdamW, model=float64),
    "weights of three widths": Case(SGD, MOMENTUM, model=mixed_widths),
    "complex weights": Case(SGD, MOMENTUM, model=Waves),
    "complex weights, AdamW": Case(AdamW, model=Waves),
    "sparse gradients": Case(SGD, model=Words),
    "sparse gradients, SparseAdam": Case(torch.optim.SparseAdam, model=Words),
    "few sparse gradients": Case(SGD, model=lambda: Words(9)),
    "maximize": Case(SGD, {**MOMENTUM, "maximize": True}),
    "maximize, AdamW": Case(AdamW, {"maximize": True}),
    "tensor lr": Case(Adam, {"lr": torch.tensor(1e-3)}),
    "tensor lr, fused": Case(AdamW, {"lr": torch.tensor(1e-3), "fused": True}),
    "tensor lr, foreach": Case(SGD, {"lr": torch.tensor(1e-3), "foreach": True}),
    "tensor lr, schedule": Case(
        SGD, {"lr": torch.tensor(1e-3), "momentum": 0.9}, scheduled
    ),
    "fused": Case(SGD, {**MOMENTUM, "fused": True}),
    "foreach": Case(AdamW, {"foreach": True}),
    "for loop": Case(AdamW, {"foreach": False}),
}
