"""The loops that people write, in one process, on plain PyTorch."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import schedulefree
import torch
from lion_pytorch import Lion as LionPytorch
from torch import Tensor, nn
from torch.nn import functional

from dynoscope.optim import Lion, Rotational
from tests.conformance.training import Net, Training, loss_of

__all__ = ["LOOPS"]


class Plain(Training):
    """Zero, backward, step."""

    def __init__(self) -> None:
        super().__init__()
        self.models: Any = Net()
        self.optimizers: Any = self.optimizer(self.models)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)

    def step(self) -> None:
        self.optimizers.zero_grad()
        loss_of(self.models).backward()
        self.note()
        self.optimizers.step()


def with_optimizer(make: Callable[[nn.Module], Any]) -> type[Training]:
    """The plain loop with another optimizer."""

    class Other(Plain):
        def optimizer(self, model: nn.Module) -> Any:
            return make(model)

    return Other


class Autocast(Plain):
    def step(self) -> None:
        self.optimizers.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(self.models)
        loss.backward()
        self.note()
        self.optimizers.step()


class Scaled(Plain):
    """A GradScaler whose first step overflows."""

    fused = False

    def __init__(self) -> None:
        super().__init__()
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
        self.overflow = True

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        fused = self.fused or None
        return torch.optim.AdamW(model.parameters(), lr=3e-3, fused=fused)

    def step(self) -> None:
        self.optimizers.zero_grad()
        scale = self.scaler.get_scale()
        scaled: Tensor = self.scaler.scale(loss_of(self.models))
        (scaled * (torch.inf if self.overflow else 1.0)).backward()
        if self.overflow:
            self.overflow = False
        else:
            self.note(scale)
        self.scaler.step(self.optimizers)
        self.scaler.update(2.0**10)


class ScaledFused(Scaled):
    fused = True


class Accumulated(Plain):
    def step(self) -> None:
        for _ in range(3):
            (loss_of(self.models) / 3).backward()
        self.note()
        self.optimizers.step()
        self.optimizers.zero_grad()


class Clipped(Plain):
    def step(self) -> None:
        self.optimizers.zero_grad()
        loss_of(self.models).backward()
        nn.utils.clip_grad_norm_(self.models.parameters(), 0.1)
        self.note()
        self.optimizers.step()


class Scheduled(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizers, max_lr=0.01, total_steps=50
        )

    def step(self) -> None:
        super().step()
        self.schedule.step()


class LowPrecision(Plain):
    def __init__(self) -> None:
        Training.__init__(self)
        self.models = Net().bfloat16()
        self.optimizers = self.optimizer(self.models)

    def step(self) -> None:
        self.optimizers.zero_grad()
        loss_of(lambda x, hints: self.models(x.bfloat16(), hints)).backward()
        self.note()
        self.optimizers.step()


class Closure(Plain):
    """An optimizer that calls for the loss itself, once or many times."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(self) -> None:
        noted = False

        def closure() -> Tensor:
            nonlocal noted
            self.optimizers.zero_grad()
            loss = loss_of(self.models)
            loss.backward()
            if not noted:
                self.note()
                noted = True
            return loss

        self.optimizers.step(closure)


class ManyEvaluations(Closure):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)


class Compiled(Plain):
    """The model compiled; the backend changes nothing but the tracing."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = self.models
        self.models = torch.compile(self.models, backend="aot_eager")

    @property
    def named(self) -> Mapping[str, Tensor]:
        return dict(self.plain.named_parameters())


class CompiledStep(Plain):
    """The optimizer's step compiled."""

    def __init__(self) -> None:
        super().__init__()
        step: Callable[[], object] = self.optimizers.step
        self.compiled = torch.compile(step, backend="aot_eager")

    def step(self) -> None:
        self.optimizers.zero_grad()
        loss_of(self.models).backward()
        self.note()
        self.compiled()


class Game(Training):
    """Two models, two optimizers, in turn."""

    def __init__(self) -> None:
        super().__init__()
        critic = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 1))
        maker = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Linear(16, 6))
        self.models = {"critic": critic, "maker": maker}
        self.optimizers = [
            torch.optim.Adam(critic.parameters(), lr=1e-3),
            Lion(maker.parameters(), lr=1e-3, weight_decay=0.5),
        ]

    @property
    def named(self) -> Mapping[str, Tensor]:
        return dict(nn.ModuleDict(self.models).named_parameters())

    def step(self) -> None:
        critic, maker = self.models["critic"], self.models["maker"]
        made = maker(torch.randn(8, 3)).detach()
        losses: list[Callable[[], Tensor]] = [
            lambda: critic(torch.randn(8, 6)).mean() - critic(made).mean(),
            lambda: critic(maker(torch.randn(8, 3))).mean(),
        ]
        for name, loss, optimizer in zip(
            self.models, losses, self.optimizers, strict=True
        ):
            optimizer.zero_grad()
            loss().backward()
            self.note(only=[n for n in self.named if n.startswith(name)])
            optimizer.step()


class InBackward(Plain):
    """An optimizer for each parameter, stepped while gradients come in."""

    def __init__(self) -> None:
        Training.__init__(self)
        self.models = Net()
        self.optimizers = [
            torch.optim.SGD([p], lr=0.05, momentum=0.9)
            for p in self.models.parameters()
        ]
        by_parameter = dict(zip(self.models.parameters(), self.optimizers, strict=True))
        names = {p: name for name, p in self.models.named_parameters()}
        for parameter in by_parameter:
            parameter.register_post_accumulate_grad_hook(
                lambda p: self.step_one(names[p], by_parameter[p])
            )

    def step_one(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self.note(only=[name])
        optimizer.step()
        optimizer.zero_grad()

    def step(self) -> None:
        loss_of(self.models).backward()


class Thawing(Plain):
    """A layer that is frozen at first."""

    def step(self) -> None:
        self.models.project.requires_grad_(len(self.seen) > 1)
        super().step()


class Growing(Plain):
    """Parameters that the optimizer is given in the middle of the run."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(model, Net)
        self.given = [f"project.{name}" for name, _ in model.project.named_parameters()]
        return torch.optim.AdamW(model.project.parameters(), lr=3e-3)

    def step(self) -> None:
        if len(self.seen) == 2:
            self.given += ["norm.weight", "norm.bias"]
            self.optimizers.add_param_group({"params": self.models.norm.parameters()})
        self.optimizers.zero_grad()
        loss_of(self.models).backward()
        self.note(only=self.given)
        self.optimizers.step()


class Sparse(Plain):
    def __init__(self) -> None:
        Training.__init__(self)
        self.models = nn.Sequential(
            nn.Embedding(20, 6, sparse=True), nn.Flatten(), nn.Linear(18, 4)
        )
        self.optimizers = torch.optim.SGD(self.models.parameters(), lr=0.1)

    def step(self) -> None:
        self.optimizers.zero_grad()
        scores = self.models(torch.randint(20, (8, 3)))
        functional.cross_entropy(scores, torch.randint(4, (8,))).backward()
        self.note()
        self.optimizers.step()


class Phases(nn.Module):
    """Complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(5, 8, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.filters.T).abs()


class Complex(Plain):
    def __init__(self) -> None:
        Training.__init__(self)
        self.models = Phases()
        self.optimizers = torch.optim.AdamW(self.models.parameters(), lr=1e-2)

    def step(self) -> None:
        self.optimizers.zero_grad()
        self.models(torch.randn(8, 8)).square().mean().backward()
        self.note()
        self.optimizers.step()


class ScheduleFree(Plain):
    def optimizer(self, model: nn.Module) -> Any:
        return schedulefree.AdamWScheduleFree(model.parameters(), lr=3e-3)

    def step(self) -> None:
        self.optimizers.train()
        super().step()
        self.close()
        self.optimizers.eval()


LOOPS: Final[Mapping[str, Callable[[], Training]]] = {
    "plain loop": Plain,
    "lr scheduler": Scheduled,
    "autocast": Autocast,
    "GradScaler": Scaled,
    "GradScaler, fused optimizer": ScaledFused,
    "gradient accumulation": Accumulated,
    "gradient clipping": Clipped,
    "bfloat16 weights": LowPrecision,
    "closure": Closure,
    "LBFGS": ManyEvaluations,
    "torch.compile: model": Compiled,
    "torch.compile: step": CompiledStep,
    "two optimizers (GAN)": Game,
    "optimizer in backward": InBackward,
    "frozen, then not": Thawing,
    "parameters added": Growing,
    "sparse gradients": Sparse,
    "complex weights": Complex,
    "fused optimizer": with_optimizer(
        lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3, fused=True)
    ),
    "tensor lr, capturable": with_optimizer(
        lambda m: torch.optim.AdamW(m.parameters(), lr=torch.tensor(3e-3))
    ),
    "maximize": with_optimizer(
        lambda m: torch.optim.SGD(m.parameters(), lr=1e-3, maximize=True)
    ),
    "Rotational": with_optimizer(
        lambda m: Rotational(torch.optim.AdamW(m.parameters(), lr=3e-3))
    ),
    "lion-pytorch": with_optimizer(
        lambda m: LionPytorch(m.parameters(), lr=1e-3, weight_decay=0.3)
    ),
    "schedule-free": ScheduleFree,
    "Adafactor": with_optimizer(lambda m: torch.optim.Adafactor(m.parameters())),
}
"""By the name that the matrix has; each gives a fresh training."""
