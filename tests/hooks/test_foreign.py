"""Optimizers of other packages, the real ones: what is read of them is what they do."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import bitsandbytes
import lion_pytorch
import numpy as np
import pytest
import pytorch_optimizer
import schedulefree
import torch
import transformers
from torch import nn

import dynoscope
from dynoscope.optim import Lion
from tests.hooks.readings import adam_root, check, info, net, record, state

Make: TypeAlias = Callable[[nn.Module], torch.optim.Optimizer]
LR, DECAY = 1e-3, 0.3
bits: Any = bitsandbytes.optim
adafactor: Any = transformers.Adafactor


class TimmLion(torch.optim.Optimizer):
    """Stands in for timm's Lion, which needs torchvision: its name, keys and rule."""

    def __init__(
        self, params: Any, *, caution: bool = False, corrected: bool = False
    ) -> None:
        defaults = {
            "lr": LR,
            "betas": (0.9, 0.99),
            "weight_decay": DECAY,
            "caution": caution,
            "corrected_weight_decay": corrected,
            "max_lr_snapshot": LR,
            "foreach": None,
            "maximize": False,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            decay = lr * group["weight_decay"]
            if group["corrected_weight_decay"]:
                decay *= lr / group["max_lr_snapshot"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - decay)
                p.sub_(lr * m.mul(beta1).add(p.grad, alpha=1 - beta1).sign_())
                m.lerp_(p.grad, 1 - beta2)


TimmLion.__name__ = "Lion"

LIONS: dict[str, Make] = {
    "lion-pytorch": lambda m: lion_pytorch.Lion(
        m.parameters(), lr=LR, weight_decay=DECAY
    ),
    "lion-pytorch, decoupled": lambda m: lion_pytorch.Lion(
        m.parameters(), lr=LR, weight_decay=DECAY * LR, decoupled_weight_decay=True
    ),
    "pytorch_optimizer": lambda m: pytorch_optimizer.Lion(
        m.parameters(), lr=LR, weight_decay=DECAY
    ),
    "bitsandbytes": lambda m: bits.Lion(m.parameters(), lr=LR, weight_decay=DECAY),
    "a stand-in for timm's": lambda m: TimmLion(m.parameters()),
}


@pytest.mark.parametrize("name", LIONS)
def test_a_lion_is_read_and_predicted_as_the_bundled_one(
    name: str, tmp_path: Path
) -> None:
    model = net()
    optimizer = LIONS[name](model)
    key = "state1" if name == "bitsandbytes" else "exp_avg"
    steps = record(tmp_path / "its", model, optimizer, momentum=state(optimizer, key))
    check(tmp_path / "its", steps, "momentum")
    ours = net()
    record(tmp_path / "ours", ours, Lion(ours.parameters(), lr=LR, weight_decay=DECAY))
    assert info(tmp_path / "its")["kinds"] == ["lion"]
    frames = [dynoscope.open_run(tmp_path / run).layers() for run in ("its", "ours")]
    for column in frames[0].columns:
        if column.startswith(("pred_", "traj_")) or column in ("lr", "weight_decay"):
            a, b = (frame[column].to_numpy(float) for frame in frames)
            np.testing.assert_allclose(a, b, rtol=1e-4, err_msg=column)
    assert frames[0]["pred_angular_update"].notna().all()


def test_timm_corrects_its_decay_by_a_schedule(tmp_path: Path) -> None:
    model = net()
    optimizer = TimmLion(model.parameters(), corrected=True)
    optimizer.param_groups[0]["lr"] = LR / 4
    record(tmp_path / "run", model, optimizer, steps=1)
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["weight_decay"].unique() == pytest.approx([DECAY / 4])


NO_LIONS: dict[str, tuple[Make, str]] = {
    "caution": (
        lambda m: TimmLion(m.parameters(), caution=True),
        "no theory covers Lion with caution=True",
    ),
    "cautious": (
        lambda m: pytorch_optimizer.Lion(m.parameters(), lr=LR, cautious=True),
        "no theory covers Lion with cautious=True",
    ),
    "coupled": (
        lambda m: pytorch_optimizer.Lion(
            m.parameters(), lr=LR, weight_decay=1e-5, weight_decouple=False
        ),
        "weight_decouple=False decays inside Lion's sign: no theory",
    ),
    "fixed": (
        lambda m: pytorch_optimizer.Lion(
            m.parameters(), lr=LR, weight_decay=1e-3, fixed_decay=True
        ),
        "fixed_decay=True decays apart from the learning rate: no theory",
    ),
    "tiger": (
        lambda m: pytorch_optimizer.Tiger(m.parameters(), lr=LR),
        "no theory is known for Tiger: it has one coefficient beta",
    ),
}


@pytest.mark.parametrize("name", NO_LIONS)
def test_what_is_no_lion_is_measured_and_not_predicted(
    name: str, tmp_path: Path
) -> None:
    make, reason = NO_LIONS[name]
    model = net()
    optimizer = make(model)
    momentum = state(optimizer, "exp_avg")
    check(
        tmp_path / "run",
        record(tmp_path / "run", model, optimizer, momentum=momentum),
        "momentum",
    )
    assert info(tmp_path / "run")["kinds"] == [None]
    assert info(tmp_path / "run")["reasons"] == [reason]
    frame = dynoscope.open_run(tmp_path / "run").layers()
    assert frame["pred_angular_update"].isna().all()


def test_ascending_is_descending_the_negative(tmp_path: Path) -> None:
    """Weights that go up f go down -f: gap and effective decay are those of -f."""
    frames = {}
    for maximize in (False, True):
        model = net()
        optimizer = pytorch_optimizer.Lion(
            model.parameters(), lr=0.0, weight_decay=DECAY, maximize=maximize
        )
        record(tmp_path / str(maximize), model, optimizer, steps=2)
        frames[maximize] = dynoscope.open_run(tmp_path / str(maximize)).layers()
    down, up = frames[False], frames[True]
    apart = (up["kkt_gap"] - down["kkt_gap"]).abs() / down["grad_l1"]
    assert apart.max() > 1e-4  # or the next line would say nothing
    both = down["kkt_gap"] + up["kkt_gap"]
    np.testing.assert_allclose(both, 2 * down["grad_l1"], rtol=1e-6)
    np.testing.assert_allclose(
        up["effective_weight_decay"] - DECAY,
        DECAY - down["effective_weight_decay"],
        rtol=1e-4, atol=1e-7,
    )  # fmt: skip


BITS: dict[str, tuple[Make, str | None]] = {
    "AdamW": (lambda m: bits.AdamW(m.parameters(), lr=LR), "adamw"),
    # its Adam decouples the weight decay as its AdamW does
    "Adam": (
        lambda m: bits.Adam(m.parameters(), lr=LR, weight_decay=DECAY),
        "adamw",
    ),
    "LAMB": (lambda m: bits.LAMB(m.parameters(), lr=LR), None),
}


@pytest.mark.parametrize("name", BITS)
def test_bitsandbytes_of_two_states(name: str, tmp_path: Path) -> None:
    make, kind = BITS[name]
    model = net()
    optimizer = make(model)
    steps = record(
        tmp_path / "run",
        model,
        optimizer,
        momentum=state(optimizer, "state1"),
        root=adam_root(optimizer, "state2"),
    )
    check(tmp_path / "run", steps, "momentum", "second moment")
    assert info(tmp_path / "run")["kinds"] == [kind]


def test_bitsandbytes_adam_decays_past_the_moments(tmp_path: Path) -> None:
    """What its kind, "adamw", says of it; torch's Adam would not."""
    model, twin = net(), net()
    ours = torch.optim.AdamW(twin.parameters(), lr=LR, weight_decay=DECAY)
    record(tmp_path / "its", model, BITS["Adam"][0](model))
    record(tmp_path / "ours", twin, ours)
    for layer in (0, 3):  # a bias before BatchNorm has a gradient of rounding alone
        a, b = (m.get_parameter(f"{layer}.weight") for m in (model, twin))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_bitsandbytes_sgd(tmp_path: Path) -> None:
    model = net()
    optimizer = bits.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    momentum = state(optimizer, "state1")
    check(
        tmp_path / "run",
        record(tmp_path / "run", model, optimizer, momentum=momentum),
        "momentum",
    )
    assert info(tmp_path / "run")["kinds"] == ["sgdm"]
    groups = dynoscope.open_run(tmp_path / "run").groups()
    assert groups["momentum"].tolist() == [0.9] * 4


def test_bitsandbytes_rmsprop(tmp_path: Path) -> None:
    model = net()
    optimizer = bits.RMSprop(model.parameters(), lr=LR)

    def root(p: torch.Tensor) -> torch.Tensor:
        v: torch.Tensor = optimizer.state[p]["state1"].double()
        return v.sqrt() + 1e-8

    steps = record(tmp_path / "run", model, optimizer, root=root)
    check(tmp_path / "run", steps, "second moment")


def test_a_step_that_bitsandbytes_limits_is_not_predicted() -> None:
    from dynoscope.hooks.recognition import adapter_for

    optimizer = bits.AdamW(net().parameters())
    optimizer.args.max_unorm = 1.0
    (reason,) = adapter_for(optimizer).describe(optimizer).reasons
    assert "max_unorm" in reason


def test_an_8_bit_state_is_opaque_and_says_so(tmp_path: Path) -> None:
    model = net()
    optimizer = bits.AdamW8bit(model.parameters(), lr=LR)
    check(tmp_path / "run", record(tmp_path / "run", model, optimizer))
    dtypes = {s["state1"].dtype for s in optimizer.state.values()}
    assert dtypes == {torch.uint8, torch.float32}  # small tensors are left alone
    found = info(tmp_path / "run")
    assert found["kinds"] == [None]
    assert "rounding to 8 bits" in found["reasons"][0]
    assert found["unread"] == "an 8-bit state is not read"


SCHEDULE_FREE: dict[str, Make] = {
    "AdamWScheduleFree": lambda m: schedulefree.AdamWScheduleFree(
        m.parameters(), lr=LR, weight_decay=0.1
    ),
    "AdamWScheduleFree, one by one": lambda m: schedulefree.AdamWScheduleFree(
        m.parameters(), lr=LR, foreach=False
    ),
    "SGDScheduleFree": lambda m: schedulefree.SGDScheduleFree(
        m.parameters(), lr=0.1, weight_decay=0.1
    ),
    "RAdamScheduleFree": lambda m: schedulefree.RAdamScheduleFree(
        m.parameters(), lr=LR
    ),
}


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_schedule_free_is_measured_right(name: str, tmp_path: Path) -> None:
    """It writes into `.grad` in its step; what is measured is the gradient it got."""
    model = net()
    optimizer: Any = SCHEDULE_FREE[name](model)
    optimizer.train()
    if name.startswith("Adam"):
        root = adam_root(optimizer, count=lambda p: optimizer.param_groups[0]["k"])
        steps = record(tmp_path / "run", model, optimizer, root=root)
        check(tmp_path / "run", steps, "second moment")
    else:
        check(tmp_path / "run", record(tmp_path / "run", model, optimizer))
    found = info(tmp_path / "run")
    assert found["kinds"] == [None]
    assert "schedule-free averaging" in found["reasons"][0]
    assert "average" in found["unread"]


def test_eval_and_train_of_schedule_free_are_no_step(tmp_path: Path) -> None:
    model = net()
    optimizer = schedulefree.SGDScheduleFree(model.parameters(), lr=0.5)
    updates, run, weight = [], tmp_path / "run", model.get_parameter("3.weight")
    with dynoscope.watch(model, optimizer, run=run, strict=True, quiet=True) as scope:
        for _ in range(3):
            optimizer.train()
            model(torch.randn(8, 64)).square().mean().backward()
            before = weight.detach().double().clone()
            optimizer.step()
            updates.append(float((weight.detach().double() - before).norm()))
            optimizer.zero_grad()
            optimizer.eval()  # moves the weights
            with pytest.raises(Exception, match="not in train mode"):
                optimizer.step()
        assert scope.step == 3
    measured = dynoscope.open_run(run).layers("update_norm", "3.weight")
    assert measured["update_norm"].tolist() == pytest.approx(updates, rel=1e-4)


@pytest.mark.parametrize("relative", [False, True])
def test_adafactor_of_transformers(relative: bool, tmp_path: Path) -> None:
    model = net()
    optimizer = adafactor(
        model.parameters(),
        lr=None if relative else LR,
        relative_step=relative,
        warmup_init=relative,
        beta1=0.9,
    )
    check(tmp_path / "run", record(tmp_path / "run", model, optimizer))
    found = info(tmp_path / "run")
    assert found["reasons"][0].startswith("no theory is known for Adafactor")
    assert "not read" in found["unread"]
    lr = dynoscope.open_run(tmp_path / "run").layers()["lr"]
    assert lr.isna().all() if relative else (lr == LR).all()


def test_an_optimizer_that_nobody_knows(tmp_path: Path) -> None:
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own
        optimizer = pytorch_optimizer.StableAdamW(model.parameters(), lr=LR)
    check(tmp_path / "run", record(tmp_path / "run", model, optimizer))
    assert info(tmp_path / "run")["reasons"] == ["no theory is known for StableAdamW"]
