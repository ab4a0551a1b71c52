"""The optimizers of torch: what is read of them, and their options."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim._muon import _zeropower_via_newtonschulz

import dynoscope
from tests.hooks.readings import (
    Read,
    adam_root,
    check,
    info,
    net,
    nothing,
    record,
    state,
)

Make: TypeAlias = Callable[[nn.Module], torch.optim.Optimizer]
Reader: TypeAlias = Callable[[torch.optim.Optimizer], Read]


def momentum(key: str) -> Reader:
    return lambda optimizer: state(optimizer, key)


def none(optimizer: torch.optim.Optimizer) -> Read:
    return nothing


def rms(optimizer: Any) -> Read:
    return lambda p: optimizer.state[p]["square_avg"].double().sqrt() + 1e-8


def largest(optimizer: Any) -> Read:
    return adam_root(optimizer, "max_exp_avg_sq")


AVERAGE, BUFFER = momentum("exp_avg"), momentum("momentum_buffer")
CASES: dict[str, tuple[Make, str | None, Reader, Reader]] = {
    "Adam": (
        lambda m: torch.optim.Adam(m.parameters(), weight_decay=1e-3),
        "adam_l2", AVERAGE, adam_root,
    ),
    "Adam, decoupled": (
        lambda m: torch.optim.Adam(m.parameters(), decoupled_weight_decay=True),
        "adamw", AVERAGE, adam_root,
    ),
    "AdamW, maximize": (
        lambda m: torch.optim.AdamW(m.parameters(), maximize=True),
        "adamw", AVERAGE, adam_root,
    ),
    "AdamW, foreach": (
        lambda m: torch.optim.AdamW(m.parameters(), foreach=True),
        "adamw", AVERAGE, adam_root,
    ),
    "AdamW, fused": (
        lambda m: torch.optim.AdamW(m.parameters(), fused=True),
        "adamw", AVERAGE, adam_root,
    ),
    "AdamW, fused amsgrad": (
        lambda m: torch.optim.AdamW(m.parameters(), fused=True, amsgrad=True),
        None, AVERAGE, largest,
    ),
    "AdamW, all of tensors": (
        lambda m: torch.optim.AdamW(
            m.parameters(),
            lr=torch.tensor(1e-3),
            betas=(torch.tensor(0.9), torch.tensor(0.99)),
            foreach=False,
        ),
        "adamw", AVERAGE, adam_root,
    ),
    "SGD, maximize, foreach": (
        lambda m: torch.optim.SGD(
            m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1,
            maximize=True, foreach=True,
        ),
        "sgdm", BUFFER, none,
    ),
    "SGD, fused": (
        lambda m: torch.optim.SGD(
            m.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True
        ),
        "sgdm", BUFFER, none,
    ),
    "NAdam": (lambda m: torch.optim.NAdam(m.parameters()), None, AVERAGE, adam_root),
    "RAdam": (lambda m: torch.optim.RAdam(m.parameters()), None, AVERAGE, none),
    "Adamax": (lambda m: torch.optim.Adamax(m.parameters()), None, AVERAGE, none),
    "Adagrad": (lambda m: torch.optim.Adagrad(m.parameters()), None, none, none),
    "Adadelta": (lambda m: torch.optim.Adadelta(m.parameters()), None, none, none),
    "RMSprop": (
        lambda m: torch.optim.RMSprop(m.parameters(), momentum=0.9), None, none, rms,
    ),
    "RMSprop, centered": (
        lambda m: torch.optim.RMSprop(m.parameters(), centered=True), None, none, none,
    ),
    "Rprop": (lambda m: torch.optim.Rprop(m.parameters()), None, none, none),
    "ASGD": (lambda m: torch.optim.ASGD(m.parameters()), None, none, none),
    "Adafactor": (lambda m: torch.optim.Adafactor(m.parameters()), None, none, none),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_is_what_it_does(name: str, tmp_path: Path) -> None:
    make, kind, momentum_of, root_of = CASES[name]
    model = net()
    optimizer = make(model)
    # The readers ask the state, which there is none of before the first step.
    steps = record(
        tmp_path / "run",
        model,
        optimizer,
        momentum=momentum_of(optimizer),
        root=root_of(optimizer),
    )
    reads = {"momentum": momentum_of, "second moment": root_of}
    check(tmp_path / "run", steps, *(what for what, r in reads.items() if r != none))
    found = info(tmp_path / "run")
    assert found["kinds"] == [kind]
    assert (found["reasons"] == [""]) == (kind is not None)
    assert not any(found["reasons"]) or "no theory" in found["reasons"][0]
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["pred_angular_update"].isna().all() == (kind is None)


def test_only_unread_moments_need_an_excuse(tmp_path: Path) -> None:
    def excuse(make: Make) -> str:
        model = net()
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        record(run, model, make(model), steps=1)
        return str(info(run)["unread"])

    assert excuse(CASES["AdamW, fused"][0]) == ""
    assert excuse(CASES["Adagrad"][0]) == ""
    assert "from the start" in excuse(CASES["RAdam"][0])
    assert "largest gradient" in excuse(CASES["Adamax"][0])
    assert "scaled gradients" in excuse(CASES["RMSprop"][0])
    assert "rows and columns" in excuse(CASES["Adafactor"][0])


def test_lbfgs_is_measured_step_by_step(tmp_path: Path) -> None:
    """All its state is under its first parameter; its gradients come inside a step."""
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    steps = record(tmp_path / "run", model, optimizer, closure=True)
    frame = dynoscope.open_run(tmp_path / "run").layers()
    for row in frame.to_dict("records"):
        step = steps[row["step"]][row["layer"]]
        update = float(np.linalg.norm(step.after - step.weight))
        assert row["update_norm"] == pytest.approx(update, rel=1e-5)
        assert math.isnan(row["momentum_norm"])
        assert row["grad_l2"] > 0
    assert info(tmp_path / "run")["reasons"] == [
        "no theory is known for LBFGS: its steps follow the curvature"
    ]


class Matrices(nn.Module):
    """A tall, a wide and a square one: Muon takes nothing else."""

    tall: nn.Parameter
    wide: nn.Parameter
    square: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        sizes = {"tall": (48, 12), "wide": (12, 48), "square": (24, 24)}
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(size)))

    def loss(self) -> Tensor:
        x = torch.randn(8, 48) @ self.tall @ self.wide
        return x[:, :24].mul(x[:, :24] @ self.square).mean()


FACTORS = {
    None: (2.0, 1.0, 1.0),
    "original": (2.0, 1.0, 1.0),
    "match_rms_adamw": tuple(0.2 * math.sqrt(n) for n in (48, 48, 24)),
}


def orthogonal(optimizer: torch.optim.Optimizer, p: Tensor) -> Tensor:
    """The direction that Muon has just taken."""
    assert p.grad is not None
    group, m = optimizer.param_groups[0], optimizer.state[p]["momentum_buffer"]
    return _zeropower_via_newtonschulz(
        p.grad.lerp(m, group["momentum"]),
        group["ns_coefficients"],
        group["ns_steps"],
        group["eps"],
    )


@pytest.mark.parametrize("adjust", FACTORS)
def test_muon_has_a_learning_rate_for_each_shape(
    adjust: str | None, tmp_path: Path
) -> None:
    model, lr, decay = Matrices(), 0.02, 0.1
    optimizer = torch.optim.Muon(
        model.parameters(), lr=lr, weight_decay=decay, adjust_lr_fn=adjust
    )
    run, rows = tmp_path / "run", []
    read = state(optimizer, "momentum_buffer")
    with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True):
        for _ in range(3):
            optimizer.zero_grad()
            model.loss().backward()
            before = [(p.detach().clone(), read(p)) for p in model.parameters()]
            optimizer.step()
            for p, (w, m) in zip(model.parameters(), before, strict=True):
                moved = w * (1 - lr * decay) - p.detach()
                direction = orthogonal(optimizer, p).double()  # it is of bfloat16
                rate = float((moved * direction).sum() / direction.square().sum())
                norm = 0.0 if m is None else float(m.double().norm())
                rows.append((rate, norm))
    frame = dynoscope.open_run(run).layers()
    assert frame["lr"].tolist() == pytest.approx([lr * f for f in FACTORS[adjust]] * 3)
    assert frame["weight_decay"].tolist() == pytest.approx([decay] * 9)
    for row, (rate, norm) in zip(frame.to_dict("records"), rows, strict=True):
        assert row["lr"] == pytest.approx(rate, rel=1e-4)
        assert row["momentum_norm"] == pytest.approx(norm, rel=1e-5)
    found = info(run)
    assert found["reasons"][0].startswith("no theory is known for Muon")


def test_a_tensor_learning_rate_is_that_of_the_step(tmp_path: Path) -> None:
    model = net()
    rate = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1)
    run = tmp_path / "run"
    with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True):
        for _ in range(3):
            model(torch.randn(8, 64)).square().mean().backward()
            optimizer.step()
            rate.mul_(0.5)
    opened = dynoscope.open_run(run)
    assert opened.groups()["lr"].tolist() == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert info(run)["hyperparameters"][0]["lr"] == pytest.approx(1e-3)


def test_a_tensor_weight_decay_makes_a_box_too() -> None:
    from dynoscope.hooks.optimizers import box_limit

    assert box_limit({"weight_decay": torch.tensor(0.5)}) == 2.0
    assert box_limit({"weight_decay": 0.0}) == box_limit({}) == math.inf
    far = torch.tensor(0.5, device="meta")  # reading it would mean waiting
    assert box_limit({"weight_decay": far}) == math.inf


def test_ascending_predicts_what_descending_the_negative_does(tmp_path: Path) -> None:
    frames = []
    for maximize, sign in ((False, 1.0), (True, -1.0)):
        model = net()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3, weight_decay=0.1, maximize=maximize
        )
        torch.manual_seed(0)
        run = tmp_path / str(maximize)
        with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True):
            for _ in range(5):
                loss = model(torch.randn(8, 64)).square().mean()
                (sign * loss).backward()
                optimizer.step()
                optimizer.zero_grad()
        frames.append(dynoscope.open_run(run).layers())
    down, up = frames
    flipped = [c for c in down.columns if c.endswith("grad_cos")]
    assert "weight_scaled_grad_cos" in flipped
    for column in down.columns.drop(["step", "wall_time", "layer"]):
        sign = -1 if column in flipped else 1
        np.testing.assert_array_equal(down[column], sign * up[column], err_msg=column)
    assert down["effective_weight_decay"].notna().any()
