"""A witness of what steps do to weights, and a run held against it."""

import dataclasses
import io
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope

Array = npt.NDArray[np.float64]
Gradients = Callable[[], dict[str, Tensor | None]]

MOMENTA = ("exp_avg", "momentum_buffer")


@dataclasses.dataclass
class Seen:
    """One step: by layer, flat float64 arrays; a complex number is two."""

    weight: dict[str, Array]
    momentum: dict[str, Array]
    grad: dict[str, Array]
    after: dict[str, Array] = dataclasses.field(default_factory=dict)


def as_array(x: Tensor) -> Array:
    x = x.detach().to_dense() if x.is_sparse else x.detach()
    x = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    copied: Array = x.double().reshape(-1).clone().numpy()
    return copied


class Witness:
    """Copies what there is around every step of an optimizer, by hooks of its own.

    Attributes:
        steps: what was seen; a closure may put the gradients in later.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.steps: list[Seen] = []
        self._model, self._optimizer = model, optimizer

    def gradients(self) -> dict[str, Array]:
        """Gradients of now."""
        named = self._model.named_parameters()
        return {n: as_array(p.grad) for n, p in named if p.grad is not None}

    def __enter__(self) -> Self:
        self._handles = [
            self._optimizer.register_step_pre_hook(
                torch.compiler.disable(self._before)
            ),
            self._optimizer.register_step_post_hook(
                torch.compiler.disable(self._after)
            ),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _weights(self) -> dict[str, Array]:
        return {name: as_array(p) for name, p in self._model.named_parameters()}

    def _before(self, *_: Any) -> None:
        momentum = {}
        for name, p in self._model.named_parameters():
            state = self._optimizer.state.get(p, {})
            for key in MOMENTA:
                if isinstance(state.get(key), Tensor):
                    momentum[name] = as_array(state[key])
        self.steps.append(Seen(self._weights(), momentum, self.gradients()))

    def _after(self, *_: Any) -> None:
        self.steps[-1].after = self._weights()


def cosine(a: Array, b: Array) -> float:
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if sizes else np.nan


def turn(a: Array, b: Array) -> float:
    """Angle by half-angle differences of unit vectors."""
    if not a.any():
        return np.nan
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * float(np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def wanted(seen: Seen, layer: str) -> dict[str, float]:
    """Metrics of one layer, recomputed."""
    w, after = seen.weight[layer], seen.after[layer]
    g = seen.grad.get(layer, np.full(w.size, np.nan))
    update = after - w
    found = {
        "weight_norm": float(np.linalg.norm(w)),
        "weight_max": float(np.abs(w).max()),
        "update_norm": float(np.linalg.norm(update)),
        "angular_update": turn(w, after),
        "grad_l1": float(np.abs(g).sum()),
        "grad_l2": float(np.linalg.norm(g)),
        "weight_grad_cos": cosine(w, g),
        "update_grad_cos": cosine(update, g),
        "unmoved_share": float((update == 0).mean()),
        "nonfinite": 0.0,
    }
    if layer in seen.momentum:
        m = seen.momentum[layer]
        found["momentum_norm"] = float(np.linalg.norm(m))
        found["momentum_grad_cos"] = cosine(m, g)
    return found


def check(run: dynoscope.Run, steps: dict[int, Seen], rel: float = 1e-5) -> None:
    """Hold every row of a run's layers against what was seen, by the step's number."""
    frame = run.layers().set_index(["step", "layer"])
    assert set(frame.index) == {(at, name) for at in steps for name in steps[at].weight}
    for at, seen in steps.items():
        for layer in seen.weight:
            row: Any = frame.loc[(at, layer)]
            metrics = wanted(seen, layer)
            for name, value in metrics.items():
                floor = 1e-5 if name.endswith("_cos") else 1e-12
                if name == "angular_update":  # along the weight it turns by 0
                    floor = (
                        3e-7
                        * metrics["update_norm"]
                        / max(metrics["weight_norm"], 1e-12)
                    )
                close = pytest.approx(value, rel=rel, abs=floor, nan_ok=True)
                assert float(row[name]) == close, (at, layer, name)


def numbered(steps: Iterable[Seen]) -> dict[int, Seen]:
    return dict(enumerate(steps))


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, *more: Any) -> bytes:
    """All that a training goes on from, to the last bit."""
    buffer = io.BytesIO()
    grads = {name: p.grad for name, p in model.named_parameters()}
    content = (model.state_dict(), grads, optimizer.state_dict(), more)
    torch.save((content, torch.get_rng_state()), buffer)
    return buffer.getvalue()


def net(seed: int = 0) -> nn.Sequential:
    """Small layers, that are stacked, and one that is walked in pieces."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 256), nn.LayerNorm(256), nn.ReLU(),
        nn.Linear(256, 160), nn.ReLU(), nn.Linear(160, 4),
    )  # fmt: skip


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 12), torch.randint(4, (8,))


class Closure:
    """Evaluates a loss, and remembers the gradients of each step's first evaluation.

    Args:
        set_to_none: whether gradients are new tensors at every evaluation.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, set_to_none: bool
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._set_to_none = set_to_none
        self._batch = batch()
        self.calls = 0
        self.first: dict[str, Array] = {}

    def __call__(self) -> Tensor:
        self._optimizer.zero_grad(set_to_none=self._set_to_none)
        inputs, labels = self._batch
        loss = functional.cross_entropy(self._model(inputs), labels)
        loss.backward()
        if not self.calls:
            self.first = {
                n: as_array(p.grad)
                for n, p in self._model.named_parameters()
                if p.grad is not None
            }
        self.calls += 1
        return loss
