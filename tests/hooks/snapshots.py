"""Steps as they really were, kept by hand, to hold recorded numbers against."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

import dynoscope

Arrays: TypeAlias = Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]


def weights(model: nn.Module) -> Arrays:
    """Parameters in float64, by name."""
    return {name: _array(p) for name, p in model.named_parameters()}


def gradients(model: nn.Module) -> Arrays:
    """Gradients in float64, by name; none where there is none."""
    named = model.named_parameters()
    return {name: _array(p.grad) for name, p in named if p.grad is not None}


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().numpy().ravel()


_METRICS = ("grad_l1", "grad_l2", "weight_norm", "update_norm", "angular_update")
_NONE = [np.nan, np.nan]


class Snapshots:
    """Weights before and after each step, and the gradients that it took.

    Attributes:
        steps: per step, (weights before, gradients, weights after).
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.steps: list[tuple[Arrays, Arrays, Arrays]] = []
        self._before: tuple[Arrays, Arrays] | None = None

    def before(self) -> None:
        """Keep weights and gradients; the last call before a step counts."""
        self._before = weights(self._model), gradients(self._model)

    def after(self) -> None:
        """Keep what a step has made of the weights."""
        assert self._before is not None
        self.steps.append((*self._before, weights(self._model)))
        self._before = None

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep every step of an optimizer that takes no closure."""
        optimizer.register_step_pre_hook(lambda *_: self.before())
        optimizer.register_step_post_hook(lambda *_: self.after())

    def check(self, run: str | Path, every: int = 1, prefix: str = "") -> None:
        """Hold a run's measurements of all layers against these steps."""
        frame = dynoscope.open_run(run).layers(list(_METRICS))
        frame = frame[~frame["layer"].str.endswith("*")]
        measured = {
            (row["step"], row["layer"]): [row[name] for name in _METRICS]
            for row in frame.to_dict("records")
        }
        real = {
            (step, prefix + layer): _metrics(old[layer], grads.get(layer), new[layer])
            for step, (old, grads, new) in enumerate(self.steps)
            for layer in old
            if step % every == 0
        }
        assert measured.keys() == real.keys() != set()
        for key, numbers in real.items():
            np.testing.assert_allclose(measured[key][:-1], numbers[:-1], rtol=1e-5)
            # an angle of float32 weights, of which the small ones are a few bits
            np.testing.assert_allclose(
                measured[key][-1], numbers[-1], rtol=1e-4, atol=1e-7
            )


def _metrics(old: Any, grad: Any | None, new: Any) -> list[float]:
    gradient = [np.linalg.norm(grad, n) for n in (1, 2)] if grad is not None else _NONE
    norms = [np.linalg.norm(old), np.linalg.norm(new - old)]
    return [float(x) for x in (*gradient, *norms, _angle(old, new))]


def _angle(a: Any, b: Any) -> float:
    """Angle between two vectors, stable where it is small; NaN of a zero one."""
    norms = np.linalg.norm(a), np.linalg.norm(b)
    if not all(norms):
        return float("nan")
    a, b = a / norms[0], b / norms[1]
    return float(2 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def hooks_of(optimizer: torch.optim.Optimizer) -> int:
    """How many step hooks an optimizer has."""
    return len(optimizer._optimizer_step_pre_hooks) + len(
        optimizer._optimizer_step_post_hooks
    )


def bits(*parts: Any) -> bytes:
    """Modules and optimizers, to the last bit."""
    buffer = io.BytesIO()
    torch.save([part.state_dict() for part in parts], buffer)
    return buffer.getvalue()


def scalar(run: str | Path, name: str) -> dict[int, float]:
    """A logged number, by step."""
    rows = dynoscope.open_run(run).scalars(name)
    return dict(zip(rows["step"], rows["value"], strict=True))
