"""Each rule speaks up where it must, and keeps silent where it nearly must."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynoscope
from dynoscope.findings import Finding, Thresholds
from dynoscope.optim import Lion, Rotational
from tests.findings.trainings import findings, normalized, of_rule, train

LAYERS = {"0.weight", "3.weight", "6.weight"}
"""Weights of `normalized`; the last one is not in front of a normalization."""


class Branches(nn.Module):
    """Two normalized layers side by side, one of which hardly counts."""

    def __init__(self, share: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.big, self.small = (
            nn.Sequential(
                nn.Linear(16, 32, bias=False),
                nn.BatchNorm1d(32, affine=False),
                nn.ReLU(),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(32, 4)
        self.share = share

    def forward(self, points: Tensor) -> Tensor:
        scores: Tensor = self.head(self.big(points) + self.share * self.small(points))
        return scores


def test_nonfinite_says_the_exact_step(tmp_path: Path) -> None:
    for name, first in (("early", 3), ("late", 41)):

        def spoilt(step: int, loss: Tensor, at: int = first) -> Tensor:
            return loss * (torch.nan if step == at else 1)

        model = normalized(32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        found = findings(model, optimizer, 50, tmp_path / name, loss_of=spoilt)
        said = of_rule(found, "nonfinite")
        assert set(said) == {name for name, _ in model.named_parameters()}
        assert {finding.step for finding in said.values()} == {first}
        assert {finding.severity for finding in said.values()} == {"error"}


def test_a_large_loss_is_finite(tmp_path: Path) -> None:
    model = normalized(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-13)
    found = findings(
        model, optimizer, 20, tmp_path / "run", loss_of=lambda step, loss: loss * 1e12
    )
    assert not of_rule(found, "nonfinite")


def test_dying_normalization_is_lion_with_relu(tmp_path: Path) -> None:
    said = {}
    for activation in (nn.ReLU, nn.LeakyReLU):
        model = normalized(32, activation)
        optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
        found = findings(model, optimizer, 600, tmp_path / activation.__name__)
        said[activation] = of_rule(found, "dying_normalization")
    assert said[nn.LeakyReLU] == {}
    assert said[nn.ReLU]
    for finding in said[nn.ReLU].values():
        assert finding.severity == "warning"
        assert finding.evidence["ghost_share"] >= 0.01
        assert finding.evidence["revived"] >= 1


def test_missing_warmup_says_how_many_steps(tmp_path: Path) -> None:
    model = normalized(32)
    optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
    said = of_rule(findings(model, optimizer, 60, tmp_path / "bare"), "missing_warmup")
    assert {"0.weight", "3.weight"} <= set(said)
    for finding in said.values():
        assert finding.evidence["peak_ratio"] > 3
        assert 20 <= finding.evidence["steps"] < 60
        assert f"over about {finding.evidence['steps']:.0f} steps" in finding.message
    model = normalized(32)
    inner = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
    found = findings(model, Rotational(inner), 60, tmp_path / "rotational")
    assert not of_rule(found, "missing_warmup")


def test_a_resumed_run_says_nothing_again(tmp_path: Path) -> None:
    said = []
    for resume in (False, True):
        model = normalized(32)
        optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
        found: list[Finding] = []
        train(model, optimizer, 60, tmp_path / "run", found, resume=resume)
        said.append(of_rule(found, "missing_warmup"))
    assert said[0]
    assert not said[1]
    run = dynoscope.open_run(tmp_path / "run")
    written = run.table("findings")["rule"].to_pylist()
    assert written.count("decayed_gains") == 5


def test_off_equilibrium_where_eps_swamps_the_gradient(tmp_path: Path) -> None:
    said = {}
    for eps in (1.0, 1e-8):
        model = normalized(32)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-2, weight_decay=1.0, eps=eps
        )
        found = findings(model, optimizer, 200, tmp_path / f"{eps}")
        said[eps] = of_rule(found, "off_equilibrium")
    for layer in ("0.weight", "3.weight"):
        assert said[1.0][layer].severity == "warning"
        assert said[1.0][layer].evidence["ratio"] < 0.5
    assert set(said[1e-8]) == {"6.weight"}
    note = said[1e-8]["6.weight"]
    assert note.severity == "note"
    assert "scale matters" in note.message
    assert note.evidence["weight_grad_cos"] > 0.01
    assert note.evidence["effective_weight_decay"] < 1.0


def test_imbalanced_rotation_is_adam_with_l2(tmp_path: Path) -> None:
    def found(
        make: Callable[..., torch.optim.Optimizer], decay: float
    ) -> list[Finding]:
        model = Branches(share=1e-3)
        optimizer = make(model.parameters(), lr=1e-2, weight_decay=decay)
        return findings(model, optimizer, 250, tmp_path / f"{decay}", noise=2.0)

    finding = of_rule(found(torch.optim.Adam, 1e-2), "imbalanced_rotation")["*"]
    assert finding.evidence["ratio"] >= 4
    assert "AdamW instead of Adam" in finding.message
    assert "small.0.weight" in finding.message
    assert not of_rule(found(torch.optim.AdamW, 1.0), "imbalanced_rotation")


def test_frozen_and_dead_layers(tmp_path: Path) -> None:
    def network(bias: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        with torch.no_grad():
            model[0].bias.fill_(bias)  # type: ignore[operator]
        return model

    for bias, dead in ((-100.0, {"0.weight", "0.bias", "2.weight"}), (0.0, set())):
        model = network(bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        found = findings(model, optimizer, 80, tmp_path / f"sgd{bias}")
        assert set(of_rule(found, "dead_layer")) == dead
        assert set(of_rule(found, "frozen_layer")) == dead
    model = network(-100.0)  # weight decay moves what has no gradient
    decayed = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = findings(model, decayed, 80, tmp_path / "adamw")
    assert of_rule(found, "dead_layer")
    assert "0.weight" not in of_rule(found, "frozen_layer")


def test_a_layer_without_gradient_is_a_note(tmp_path: Path) -> None:
    model = normalized(32)
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said = of_rule(findings(model, optimizer, 60, tmp_path / "run"), "frozen_layer")
    assert {layer: finding.severity for layer, finding in said.items()} == {
        "0.weight": "note"
    }


def test_rounded_updates_need_low_precision(tmp_path: Path) -> None:
    for dtype, fires in ((torch.bfloat16, True), (torch.float32, False)):
        model = normalized(32).to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        found = findings(model, optimizer, 60, tmp_path / str(dtype))
        assert (set(of_rule(found, "rounded_updates")) >= LAYERS) == fires
    model = normalized(32).bfloat16()
    large = Lion(model.parameters(), lr=1e-2)
    found = findings(model, large, 60, tmp_path / "large steps")
    assert "0.weight" not in of_rule(found, "rounded_updates")


def test_sparse_gradient_of_inputs_that_are_mostly_0(tmp_path: Path) -> None:
    for zeros, layers in ((4080, {"1.weight"}), (0, set())):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.ZeroPad1d((0, zeros)), nn.Linear(16 + zeros, 16), nn.Linear(16, 4)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        found = findings(model, optimizer, 60, tmp_path / str(zeros))
        assert set(of_rule(found, "sparse_gradient")) == layers


def test_pinned_at_box(tmp_path: Path) -> None:
    for decay, fires in ((10.0, True), (0.3, False)):
        model = normalized(32)
        optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=decay)
        found = findings(model, optimizer, 150, tmp_path / str(decay))
        said = of_rule(found, "pinned_at_box")
        assert bool(said) == fires
        for finding in said.values():  # they start outside, and are not there yet
            assert finding.layer.endswith("bias") or finding.step > 20
    model = normalized(32)  # the same box, for an optimizer that knows none
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=10.0)
    assert not of_rule(findings(model, adamw, 150, tmp_path / "w"), "pinned_at_box")


def test_slow_weight_decay_and_decayed_gains(tmp_path: Path) -> None:
    for decay, slow in ((0.1, LAYERS), (1.0, set())):
        model = normalized(32)
        matrices = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=decay)
        found = findings(model, optimizer, 100, tmp_path / str(decay))
        said = of_rule(found, "slow_weight_decay")
        assert set(said) == slow
        assert not of_rule(found, "decayed_gains")
        for finding in said.values():
            assert finding.evidence["half_life"] == pytest.approx(346.6, rel=1e-2)
    model = normalized(32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    found = findings(model, optimizer, 20, tmp_path / "all")
    biases = {name for name, p in model.named_parameters() if p.dim() < 2}
    assert set(of_rule(found, "decayed_gains")) == biases


def test_adam_l2_needs_weight_decay(tmp_path: Path) -> None:
    for decay, layers in ((1e-3, {"*"}), (0.0, set())):
        model = normalized(32)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=decay)
        found = findings(model, optimizer, 20, tmp_path / str(decay))
        assert set(of_rule(found, "adam_l2")) == layers


def test_thresholds_decide(tmp_path: Path) -> None:
    model = normalized(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = findings(
        model, optimizer, 60, tmp_path / "run",
        thresholds=Thresholds(grad_density=1.0),
    )  # fmt: skip
    assert set(of_rule(found, "sparse_gradient")) >= {"0.weight", "3.weight"}
