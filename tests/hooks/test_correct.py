"""Every metric of a recorded run against a slow float64 recomputation."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import dynoscope
from dynoscope.metrics.derive import LAYER_METRICS
from dynoscope.metrics.neurons import NEURON_METRICS
from tests.networks import OPTIMIZERS, Digits, MixedNet, mixed_loss

Array = npt.NDArray[np.float64]
STEPS = 6
DECOUPLED = {"adamw": 0.1, "lion": 0.3, "boxed": 2.0}  # weight decay
MOMENTA = {"exp_avg", "momentum_buffer"}


@dataclasses.dataclass
class Saved:
    """One layer at one step, as float64 matrices with a row per output."""

    weight: Array
    grad: Array
    momentum: Array | None
    after: Array
    scaled_grad: Array | None = None


def as_rows(x: Tensor) -> Array:
    flat = x.detach().double().reshape(x.shape[0] if x.dim() else 1, -1)
    return flat.numpy().copy()


def train_and_save(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict[str, Saved]]:
    data, steps = Digits(), []
    for _ in range(STEPS):
        mixed_loss(model, data).backward()
        saved = {}
        for name, p in model.named_parameters():
            assert p.grad is not None
            states = optimizer.state.get(p, {})
            momentum = [s for k, s in states.items() if k in MOMENTA and s is not None]
            saved[name] = Saved(
                as_rows(p),
                as_rows(p.grad),
                as_rows(momentum[0]) if momentum else None,
                np.empty(0),
            )
        optimizer.step()
        for name, p in model.named_parameters():
            saved[name].after = as_rows(p)
            saved[name].scaled_grad = scaled_grad(optimizer, p)
        optimizer.zero_grad()
        steps.append(saved)
    return steps


def scaled_grad(optimizer: torch.optim.Optimizer, p: Tensor) -> Array | None:
    """g / (sqrt(v) + eps), from the state that torch's Adam keeps."""
    state, group = optimizer.state[p], optimizer.param_groups[0]
    if "exp_avg_sq" not in state:
        return None
    assert p.grad is not None
    second_moment = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    v = as_rows(second_moment) / (1 - group["betas"][1] ** float(state["step"]))
    scaled: Array = as_rows(p.grad) / (np.sqrt(v) + group["eps"])
    return scaled


def ratio(a: float, b: float) -> float:
    return a / b if b else np.nan


def cosine(a: Array, b: Array) -> float:
    return ratio(float((a * b).sum()), float(np.linalg.norm(a) * np.linalg.norm(b)))


def turn(a: Array, b: Array) -> float:
    """Angle by half-angle differences of unit vectors: no arccos, no our formula."""
    if not np.linalg.norm(a):
        return np.nan
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * float(np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v)))


def far_share(parts: list[Saved], decay: float, factor: float) -> float:
    w = np.abs(np.concatenate([s.weight.ravel() for s in parts]))
    if not decay > 0:
        return np.nan
    edge = np.float64(np.float32(factor / decay))  # float32 is what weights are in
    return float((w >= edge).mean() if factor < 1 else (w > edge).mean())


def expected_layer(parts: list[Saved], decay: float = 0.0) -> dict[str, float]:
    """All layer metrics of some layers taken together."""
    w = np.concatenate([s.weight.ravel() for s in parts])
    g = np.concatenate([s.grad.ravel() for s in parts])
    after = np.concatenate([s.after.ravel() for s in parts])
    zero = [np.zeros(s.weight.size) for s in parts]
    m = np.concatenate(
        [z if s.momentum is None else s.momentum.ravel()
         for s, z in zip(parts, zero, strict=True)]
    )  # fmt: skip
    update = after - w
    u = np.concatenate(
        [np.full(s.weight.size, np.nan) if s.scaled_grad is None
         else s.scaled_grad.ravel() for s in parts]
    )  # fmt: skip
    l1, l2 = float(np.abs(g).sum()), float(np.linalg.norm(g))
    return {
        "weight_norm": float(np.linalg.norm(w)),
        "weight_max": float(np.abs(w).max()),
        "grad_l1": l1,
        "grad_l2": l2,
        "grad_ratio": ratio(l1, l2),
        "grad_density": ratio(l1, l2 * np.sqrt(g.size)),
        "momentum_norm": float(np.linalg.norm(m)),
        "update_norm": float(np.linalg.norm(update)),
        "update_ratio": ratio(float(np.linalg.norm(update)), float(np.linalg.norm(w))),
        "angular_update": turn(w, after),
        "weight_grad_cos": cosine(w, g),
        "weight_update_cos": cosine(w, update),
        "momentum_grad_cos": cosine(m, g),
        "update_grad_cos": cosine(update, g),
        "scaled_grad_norm": float(np.linalg.norm(u)),
        "weight_scaled_grad_cos": cosine(w, u),
        "outside_share": far_share(parts, decay, 1.0),
        "box_share": far_share(parts, decay, 0.99),
        "unmoved_share": float((after == w).mean()),
        "nonfinite": 0.0,
    }


def assert_close(name: str, found: float, wanted: float, update_ratio: float) -> None:
    floor = 1e-12
    if name.endswith("_cos"):  # the natural scale of a cosine is 1
        floor = 1e-5
    if name.startswith("angular_update"):  # an update along the weight turns by 0
        floor = 3e-7 * np.nan_to_num(update_ratio)
    close = pytest.approx(wanted, rel=1e-5, abs=floor, nan_ok=True)
    assert found == close, name


@pytest.fixture(scope="module", params=list(OPTIMIZERS))
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dynoscope.Run, list[dict[str, Saved]]]:
    torch.manual_seed(5)
    model = MixedNet()
    optimizer = OPTIMIZERS[request.param](model)
    folder = tmp_path_factory.mktemp("runs") / "run"
    with dynoscope.watch(model, optimizer, run=folder, strict=True, quiet=True):
        saved = train_and_save(model, optimizer)
    return request.param, dynoscope.open_run(folder), saved


Recorded = tuple[str, dynoscope.Run, list[dict[str, Saved]]]


def test_every_layer_metric(recorded: Recorded) -> None:
    name, run, saved = recorded
    frame = run.layers().set_index(["step", "layer"])[list(LAYER_METRICS)]
    assert len(frame) == STEPS * len(saved[0])
    for step, layers in enumerate(saved):
        for layer, values in layers.items():
            wanted = expected_layer([values], DECOUPLED.get(name, 0.0))
            found: Any = frame.loc[(step, layer)]
            if name == "sgd":  # it keeps no momentum: there is nothing to measure
                assert np.isnan(found["momentum_norm"])
                continue
            for metric in LAYER_METRICS:
                assert_close(
                    metric, float(found[metric]), wanted[metric], wanted["update_ratio"]
                )


def test_every_roll_up(recorded: Recorded) -> None:
    name, run, saved = recorded
    frame = run.layers(layer=["*", "stem.*", "norm.*"])
    assert frame["layer"].tolist() == ["*", "stem.*", "norm.*"] * STEPS
    for row in frame.to_dict("records"):
        prefix = row["layer"].removesuffix("*")
        parts = [s for k, s in saved[row["step"]].items() if k.startswith(prefix)]
        wanted = expected_layer(parts, DECOUPLED.get(name, 0.0))
        for metric in LAYER_METRICS:
            if not (name == "sgd" and "momentum" in metric):
                assert_close(
                    metric, row[metric], wanted[metric], wanted["update_ratio"]
                )
        assert row["numel"] == sum(s.weight.size for s in parts)


def test_every_kkt_gap(recorded: Recorded) -> None:
    name, run, saved = recorded
    frame = run.layers(["kkt_gap", "weight_decay"], ["*", "stem.*", *run.layer_names])
    for row in frame.to_dict("records"):
        prefix, decay = row["layer"].removesuffix("*"), row["weight_decay"]
        parts = [s for k, s in saved[row["step"]].items() if k.startswith(prefix)]
        norm = sum(float(np.abs(s.grad).sum()) for s in parts)
        inner = sum(float((s.weight * s.grad).sum()) for s in parts)
        known = name in DECOUPLED
        wanted = decay * inner + norm if known else np.nan
        close = pytest.approx(wanted, abs=1e-5 * norm, nan_ok=True)
        assert row["kkt_gap"] == close
        inside = all(np.abs(s.weight).max() * decay <= 1 for s in parts)
        assert not known or not inside or row["kkt_gap"] >= -1e-5 * norm


def test_every_neuron_metric(recorded: Recorded) -> None:
    _, run, saved = recorded
    frame = run.neurons()
    matrices = [
        "stem.0.weight",
        "depthwise.weight",
        "embedding.weight",
        "project.weight",
    ]
    assert frame["layer"].tolist() == matrices * STEPS
    for row in frame.to_dict("records"):
        values = saved[row["step"]][row["layer"]]
        rows = zip(values.weight, values.after, strict=True)
        update_ratio = expected_layer([values])["update_ratio"]
        series = {
            "weight_norm": pd.Series(np.linalg.norm(values.weight, axis=1)),
            "angular_update": pd.Series([turn(a, b) for a, b in rows]),
        }
        for metric in NEURON_METRICS:
            quantity, statistic = metric.rsplit("_", 1)
            wanted = statistic_of(series[quantity], statistic)
            if statistic != "cv" or series[quantity].mean() > 1e-7:
                assert_close(metric, row[metric], wanted, update_ratio)


def statistic_of(values: "pd.Series[float]", statistic: str) -> float:
    if statistic.startswith("p"):
        return float(values.quantile(int(statistic[1:]) / 100))
    if statistic == "cv":
        return ratio(float(values.std(ddof=0)), float(values.mean()))
    return float(values.agg(statistic))


def test_every_companion_of_normalization(recorded: Recorded) -> None:
    name, run, saved = recorded
    groups = run.groups().set_index("step")
    frame = run.normalization()
    assert frame["layer"].tolist() == ["stem.1.bias", "norm.bias"] * STEPS
    for row in frame.to_dict("records"):
        values = saved[row["step"]][row["layer"]]
        w, update = values.weight.ravel(), (values.after - values.weight).ravel()
        if name in DECOUPLED:
            settings: Any = groups.loc[row["step"]]
            update = update + settings["lr"] * settings["weight_decay"] * w
        assert row["weight_q95"] == pytest.approx(np.quantile(np.abs(w), 0.95))
        count = math.ceil(w.size / 20)
        order = np.argsort(np.abs(w))
        least_in, most_out = np.abs(w[order[[-count, -count - 1]]])
        if least_in > 1.001 * most_out:  # else which ones are the largest is open
            top = order[-count:]
            wanted = cosine(w[top], update[top])
            assert row["top5_cos"] == pytest.approx(wanted, abs=1e-4)


def test_tied_weights_are_one_layer_with_two_names(recorded: Recorded) -> None:
    _, run, _ = recorded
    tied = next(x for x in run.manifest["layers"] if x["name"] == "embedding.weight")
    assert tied["aliases"] == ["head.weight"]
    assert "head.weight" not in run.layer_names


def test_hyperparameters_are_those_of_the_step(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = MixedNet()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "lr": 1e-2},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "lr": 1e-3},
        ],
        weight_decay=0.1,
    )
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    data = Digits()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for _ in range(3):
            mixed_loss(model, data).backward()
            optimizer.step()
            schedule.step()
    run = dynoscope.open_run(tmp_path / "run")
    groups = run.groups()
    assert groups[groups.group == 0]["lr"].tolist() == [1e-2, 5e-3, 2.5e-3]
    assert groups[groups.group == 1]["lr"].tolist() == [1e-3, 5e-4, 2.5e-4]
    rows = run.layers(["lr", "weight_decay"], ["project.weight", "norm.bias"], 1)
    assert rows["lr"].tolist() == [5e-3, 5e-4]
    assert rows["weight_decay"].tolist() == [0.1, 0.1]
