"""A small training under `watch`, and what it should have read, by hand in float64."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import dynoscope
from tests.networks import Digits

Array: TypeAlias = npt.NDArray[np.float64]
Read: TypeAlias = Callable[[Tensor], Tensor | None]
"""From a parameter, a copy of what an optimizer keeps for it, or None."""


def nothing(parameter: Tensor) -> Tensor | None:
    return None


def net(seed: int = 3) -> nn.Sequential:
    """With a layer that is measured in pieces, stacked ones, and BatchNorm."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, 520), nn.BatchNorm1d(520), nn.ReLU(), nn.Linear(520, 10)
    )


@dataclasses.dataclass
class Step:
    """One layer at one step."""

    weight: Array
    grad: Array
    momentum: Array | None
    after: Array
    root: Array | None = None  # what the gradient is divided by


def float64(x: Tensor | None) -> Array | None:
    return None if x is None else x.detach().double().flatten().numpy().copy()


def kept(x: Tensor) -> Array:
    copied = float64(x)
    assert copied is not None
    return copied


def record(
    run: Path,
    model: nn.Module,
    optimizer: Any,
    *,
    momentum: Read = nothing,
    root: Read = nothing,
    steps: int = 4,
    closure: bool = False,
) -> list[dict[str, Step]]:
    """Train under `watch(strict=True)`, and keep all that the checks need.

    Args:
        run: folder of the run.
        model: is trained.
        optimizer: is stepped, as the user steps it.
        momentum: reads the momentum.
        root: reads sqrt(v) + eps, after the step.
        steps: how many.
        closure: whether the step is given one.
    """
    data, recorded = Digits(), []
    torch.manual_seed(7)
    with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True):
        for _ in range(steps):
            drawn = data.draw()

            def loss(batch: tuple[Tensor, Tensor] = drawn) -> Tensor:
                optimizer.zero_grad()
                value = functional.cross_entropy(model(batch[0].flatten(1)), batch[1])
                value.backward()
                return value

            loss()
            step = {
                name: Step(kept(p), kept(p.grad), float64(momentum(p)), np.empty(0))
                for name, p in model.named_parameters()
                if p.grad is not None
            }
            optimizer.step(loss) if closure else optimizer.step()
            for name, p in model.named_parameters():
                step[name].after, step[name].root = kept(p), float64(root(p))
            recorded.append(step)
    return recorded


def turn(a: Array, b: Array) -> float:
    """Angle by half-angle differences of unit vectors: no arccos."""
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * float(np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def cosine(a: Array, b: Array) -> float:
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else np.nan


def expected(step: Step, reads: tuple[bool, bool]) -> dict[str, float]:
    """Columns of `layers`; `reads` says if momentum, and second moment, are read."""
    w, g, update = step.weight, step.grad, step.after - step.weight
    m = np.zeros_like(w) if step.momentum is None else step.momentum
    u = g / step.root if step.root is not None else np.full_like(w, np.nan)
    has_momentum, has_second_moment = reads
    columns = {
        "weight_norm": float(np.linalg.norm(w)),
        "grad_l2": float(np.linalg.norm(g)),
        "update_norm": float(np.linalg.norm(update)),
        "angular_update": turn(w, step.after),
        "update_grad_cos": cosine(update, g),
        "weight_update_cos": cosine(w, update),
        "unmoved_share": float((update == 0).mean()),
        "nonfinite": 0.0,
    }
    columns["momentum_norm"] = float(np.linalg.norm(m)) if has_momentum else np.nan
    columns["momentum_grad_cos"] = cosine(m, g) if has_momentum else np.nan
    columns["scaled_grad_norm"] = (
        float(np.linalg.norm(u)) if has_second_moment else np.nan
    )
    columns["weight_scaled_grad_cos"] = cosine(w, u) if has_second_moment else np.nan
    return columns


def check(run: Path, recorded: list[dict[str, Step]], *reads: str) -> None:
    """Compare a run with what was kept; `reads`: "momentum", "second moment"."""
    frame = dynoscope.open_run(run).layers()
    assert len(frame) == sum(map(len, recorded))
    wanted_of = "momentum" in reads, "second moment" in reads
    for row in frame.to_dict("records"):
        step = recorded[row["step"]][row["layer"]]
        if not np.linalg.norm(step.weight):
            continue  # a bias before its first step has no angle
        columns = expected(step, wanted_of)
        # Where the whole update is along the weight, its angle is that of rounding.
        rounding = {"angular_update": 3e-7 * row["update_ratio"]}
        for name, wanted in columns.items():
            atol = 1e-5 if name.endswith("cos") else rounding.get(name, 1e-12)
            close = pytest.approx(wanted, rel=1e-5, abs=atol, nan_ok=True)
            assert row[name] == close, (row["step"], row["layer"], name)


def info(run: Path) -> Mapping[str, Any]:
    """What a run says of its optimizer."""
    found: Mapping[str, Any] = dynoscope.open_run(run).manifest["optimizer"]
    return found


def state(optimizer: Any, key: str) -> Read:
    """Reads an entry of the optimizer's state; None where there is none yet."""

    def read(parameter: Tensor) -> Tensor | None:
        found = optimizer.state.get(parameter, {}).get(key)
        return None if found is None else found.clone()

    return read


def adam_root(
    optimizer: Any,
    key: str = "exp_avg_sq",
    count: Callable[[Tensor], float] | None = None,
) -> Read:
    """Reads sqrt(v / (1 - beta2**t)) + eps, in float64."""

    def read(parameter: Tensor) -> Tensor | None:
        found, group = optimizer.state[parameter], optimizer.param_groups[0]
        steps = float(found["step"]) if count is None else count(parameter)
        v: Tensor = found[key].double() / (1 - float(group["betas"][1]) ** steps)
        return v.sqrt() + float(group["eps"])

    return read
