from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynoscope.errors import TheoryError
from dynoscope.theory import equilibrium, scale_sensitivity
from dynoscope.theory.scale_sensitivity import effective_equilibrium

ADAMW: dict[str, Any] = {"lr": 3e-3, "weight_decay": 0.5, "betas": (0.9, 0.99)}


def network(width: int = 64) -> nn.Sequential:
    layers = [nn.Linear(width, n, bias=False) for n in (width, width, 10)]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def measure(optimizer: torch.optim.AdamW, before: list[Tensor], step: int) -> Tensor:
    """||w||^2, <w, u>, ||u||^2 and the squared angle of every layer."""
    rows = []
    (group,) = optimizer.param_groups
    for param, old in zip(group["params"], before, strict=True):
        second = optimizer.state[param]["exp_avg_sq"] / (1 - 0.99 ** (step + 1))
        scaled = param.grad / (second.sqrt() + group["eps"])
        size, after = old.norm(), param.detach().norm()
        chord = (param.detach() / after - old / size).norm()
        angle = 2 * torch.arcsin(chord / 2)
        rows.append(
            torch.stack(
                [size**2, (old * scaled).sum(), scaled.square().sum(), angle**2]
            )
        )
    return torch.stack(rows).double()


def train(steps: int) -> tuple[nn.Sequential, Any]:
    """A student of a noisy teacher; means over the steps after the first third."""
    torch.manual_seed(0)
    teacher, student = network(), network()
    with torch.no_grad():
        for param in teacher.parameters():
            param.mul_(3)
    optimizer = torch.optim.AdamW(student.parameters(), **ADAMW)
    measured = []
    for step in range(steps):
        inputs = torch.randn(32, 64)
        with torch.no_grad():
            labels = teacher(inputs) + 10 * torch.randn(32, 10)
        optimizer.zero_grad()
        (student(inputs) - labels).square().mean().backward()
        wanted = step >= steps // 3
        before = [p.detach().clone() for p in student.parameters()] if wanted else []
        optimizer.step()
        if wanted:
            measured.append(measure(optimizer, before, step))
    return student, torch.stack(measured).mean(dim=0).T.numpy()


def test_a_relu_network_settles_where_the_effective_decay_says() -> None:
    student, means = train(10_000)
    weight_sq, weight_update, scaled_grad_sq, angle_sq = means
    numel = np.array([p.numel() for p in student.parameters()])
    found = effective_equilibrium(
        "adamw",
        numel=numel,
        weight_update=weight_update,
        weight_sq=weight_sq,
        scaled_grad_sq=scaled_grad_sq,
        **ADAMW,
    )
    plain = equilibrium("adamw", numel=numel, **ADAMW)
    norm, angle = np.sqrt(weight_sq), np.sqrt(angle_sq)
    np.testing.assert_allclose(norm / found.weight_norm, 1, atol=0.03)
    np.testing.assert_allclose(angle / found.angular_update, 1, atol=0.03)
    assert (np.abs(norm / plain.weight_norm - 1) > 0.15).all()
    assert (np.abs(angle / plain.angular_update - 1) > 0.15).all()


def test_where_eps_counts_the_measured_update_replaces_the_numel() -> None:
    lr, decay, eps = 1e-3, 5.0, 1e-3
    noise = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-5, -2, 4096)  # from far below eps to above it
    param = nn.Parameter(torch.randn(4096, generator=noise) * 0.01)
    optimizer = torch.optim.AdamW(
        [param], lr, weight_decay=decay, betas=(0.9, 0.99), eps=eps
    )
    measured = []
    for step in range(1500):
        param.grad = sizes * torch.randn(4096, generator=noise)
        before = [param.detach().clone()]
        optimizer.step()
        if step >= 500:
            measured.append(measure(optimizer, before, step)[0])
    weight_sq, weight_update, scaled_grad_sq, _ = torch.stack(measured).mean(0).numpy()
    hyper: dict[str, Any] = {"lr": lr, "weight_decay": decay, "betas": (0.9, 0.99)}
    found = effective_equilibrium(
        "adamw",
        numel=4096,
        weight_update=weight_update,
        weight_sq=weight_sq,
        scaled_grad_sq=scaled_grad_sq,
        **hyper,
    )
    assert np.sqrt(weight_sq) == pytest.approx(float(found.weight_norm), rel=0.02)
    plain = equilibrium("adamw", numel=4096, **hyper)
    assert np.sqrt(weight_sq) < 0.6 * plain.weight_norm


def test_lambda_u_adds_to_the_decay() -> None:
    update, weight_sq = np.array([0.0, 3.0, -1.0, 0.0]), np.array([4.0, 2.0, 2.0, 0.0])
    effective = scale_sensitivity.effective_weight_decay(
        np.array(0.5), update, weight_sq
    )
    np.testing.assert_allclose(effective, [0.5, 2.0, 0.0, np.nan])
    factor = scale_sensitivity.weight_decay_error(effective, np.array(0.5))
    np.testing.assert_allclose(factor, [1.0, 4.0, 0.0, np.nan])
    none = scale_sensitivity.weight_decay_error(effective, np.array(0.0))
    assert np.isnan(none).all()


@pytest.mark.parametrize("optimizer", ["adamw", "sgdm", "adam_l2", "lion"])
def test_it_is_the_equilibrium_at_the_effective_decay(optimizer: str) -> None:
    common: dict[str, Any] = {
        "numel": [16, 64, 64],
        "lr": 1e-2,
        "betas": (0.9, 0.99),
        "momentum": 0.9,
        "effective_grad_sq": 1e-3,
    }
    found = effective_equilibrium(
        optimizer,
        weight_decay=0.5,
        weight_update=[1.0, -3.0, 1000.0],
        weight_sq=4.0,
        **common,
    )
    wanted = equilibrium(optimizer, weight_decay=0.75, **common)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours[0] == pytest.approx(float(theirs[0]), rel=1e-12)
        # the weight grows, or would be erased in a step
        assert np.isnan(ours[1:]).all()


def test_scaled_gradients_are_adamw_s() -> None:
    with pytest.raises(TheoryError, match="scaled_grad_sq is for 'adamw'"):
        effective_equilibrium(
            "sgdm",
            numel=1,
            lr=0.1,
            weight_decay=0.1,
            weight_update=0,
            weight_sq=1,
            scaled_grad_sq=1,
        )
