"""What optimizers are taken for; and teaching dynoscope one of your own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynoscope
from dynoscope.errors import UnwatchableError
from dynoscope.hooks import recognition
from dynoscope.hooks.recognition import adapter_for
from dynoscope.optim import Lion
from tests.hooks.readings import check, info, net, record, state


class Walk(torch.optim.Optimizer):
    """Lion under other names."""

    def __init__(
        self, params: Any, lr: float = 1e-3, weight_decay: float = 0.3
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "betas": (0.9, 0.99)}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("drift", torch.zeros_like(p))
                p.mul_(1 - lr * group["weight_decay"])
                p.sub_(lr * m.mul(beta1).add(p.grad, alpha=1 - beta1).sign_())
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)


class Stroll(Walk):
    """The same step."""


class Stumble(Walk):
    """A step of its own."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)


class Impostor(Walk):
    """Goes by the name of one whose groups are like its own, but not its state."""


Impostor.__name__ = "Lion"


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "_registered", {})


def reasons(optimizer: torch.optim.Optimizer) -> list[str]:
    return list(adapter_for(optimizer).describe(optimizer).reasons)


def walk(cls: type[Walk] = Walk) -> Walk:
    return cls(net().parameters())


@pytest.mark.parametrize("name", ["Walk", Walk])
def test_an_optimizer_that_was_taught(name: Any, tmp_path: Path) -> None:
    dynoscope.register_optimizer(name, momentum="drift", theory="lion", keys={"betas"})
    model, ours = net(), net()
    optimizer = Walk(model.parameters())
    momentum = state(optimizer, "drift")
    steps = record(tmp_path / "its", model, optimizer, momentum=momentum)
    check(tmp_path / "its", steps, "momentum")
    record(tmp_path / "ours", ours, Lion(ours.parameters(), lr=1e-3, weight_decay=0.3))
    frames = [dynoscope.open_run(tmp_path / run).layers() for run in ("its", "ours")]
    measured = [c for c in frames[0].columns if c != "wall_time"]
    assert frames[0]["pred_angular_update"].notna().all()
    for column in measured:
        assert frames[0][column].equals(frames[1][column]), column


def test_one_that_was_not_taught_is_measured_all_the_same(tmp_path: Path) -> None:
    model = net()
    check(tmp_path / "run", record(tmp_path / "run", model, Walk(model.parameters())))
    assert info(tmp_path / "run")["reasons"] == ["no theory is known for Walk"]


def test_teaching_holds_for_subclasses_that_keep_the_step() -> None:
    dynoscope.register_optimizer(Walk, theory="lion")
    assert reasons(walk(Stroll)) == [""]
    assert reasons(walk(Stumble)) == ["Stumble replaces the step of Walk"]


def test_what_was_taught_last_counts_and_goes_before_what_is_known() -> None:
    dynoscope.register_optimizer("AdamW", theory="lion")
    dynoscope.register_optimizer("AdamW")
    optimizer = torch.optim.AdamW(net().parameters())
    assert reasons(optimizer) == ["AdamW was registered without a theory"]


def test_a_theory_may_look_at_the_group() -> None:
    def theory(group: Any) -> tuple[str | None, str]:
        return ("lion", "") if group["lr"] < 1 else (None, "walks too fast")

    dynoscope.register_optimizer(Walk, theory=theory)
    optimizer = Walk(
        [
            {"params": p, "lr": r}
            for p, r in zip(net()[0].parameters(), (0.1, 2), strict=True)
        ]
    )
    found = adapter_for(optimizer).describe(optimizer)
    assert found.kinds == ("lion", None)
    assert found.reasons == ("", "walks too fast")


@pytest.mark.parametrize("answer", ["lion", ("lionn", ""), None, 3])
def test_a_theory_that_gives_nonsense_is_named(answer: Any) -> None:
    dynoscope.register_optimizer(Walk, theory=lambda group: answer)
    with pytest.raises(UnwatchableError, match=r"lionn|registered for Walk gave"):
        reasons(walk())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "names no class"),
        ((3,), "takes a class of optimizers or its name, not 3"),
        ((nn.Linear,), "takes a class of optimizers"),
        ((walk(),), "takes a class of optimizers"),
    ],
)
def test_bad_teaching_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UnwatchableError, match=message):
        dynoscope.register_optimizer(*arguments)


def test_an_unknown_theory_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        UnwatchableError, match=r"'lionn'; known are 'adam_l2', 'adamw'"
    ):
        dynoscope.register_optimizer("MyLion", theory="lionn")


def test_keys_tell_optimizers_of_one_name_apart() -> None:
    dynoscope.register_optimizer("Walk", theory="lion", keys={"pace"})
    assert reasons(walk()) == ["no theory is known for Walk: its group lacks pace"]


def test_a_taught_second_moment(tmp_path: Path) -> None:
    """Adam by another name: what divides the gradient, bias correction and all."""

    class Mirror(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    dynoscope.register_optimizer(
        Mirror, momentum="exp_avg", second_moment="exp_avg_sq", theory="adamw"
    )
    frames = []
    for cls in (Mirror, torch.optim.AdamW):
        model = net()
        record(
            tmp_path / cls.__name__, model, cls(model.parameters(), weight_decay=0.1)
        )
        frames.append(dynoscope.open_run(tmp_path / cls.__name__).layers())
    assert frames[0]["scaled_grad_norm"].notna().all()
    for column in frames[0].columns.drop("wall_time"):
        assert frames[0][column].equals(frames[1][column]), column


def test_a_name_that_does_not_fit_is_found_out_by_the_state(tmp_path: Path) -> None:
    """Its groups look right; after its first step its state does not."""
    model, run = net(), tmp_path / "run"
    optimizer = Impostor(model.parameters())
    assert reasons(optimizer) == [""]
    check_from = record(run, model, optimizer)
    opened = dynoscope.open_run(run)
    frame = opened.layers()
    late = frame[frame.step > 0]
    assert late["momentum_norm"].isna().all()
    assert late["pred_angular_update"].isna().all()
    assert late["update_norm"].gt(0).all()
    assert len(frame) == sum(map(len, check_from))
    (problem,) = opened.manifest["problems"]
    assert "no theory is known for Lion: its state lacks exp_avg" in problem
    assert reasons(optimizer) == [
        "no theory is known for Lion: its state lacks exp_avg"
    ]


def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    dynoscope.register_optimizer(Walk, momentum="momentum", theory="lion")
    model, run = net(), tmp_path / "run"
    record(run, model, Walk(model.parameters()))
    (problem,) = dynoscope.open_run(run).manifest["problems"]
    assert problem == (
        "only measured from step 1 on, without predictions: no theory is known for "
        "Walk: its state lacks momentum"
    )


def test_rejudging_is_quiet_where_nothing_is_odd(tmp_path: Path) -> None:
    for make in (torch.optim.AdamW, torch.optim.SGD, Lion, torch.optim.RMSprop):
        model = net()
        run = tmp_path / make.__name__
        record(run, model, make(model.parameters(), lr=1e-3))
        assert dynoscope.open_run(run).manifest["problems"] == []
