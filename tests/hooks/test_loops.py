"""Training loops as people write them: the numbers, and that nothing changes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import dynoscope
from dynoscope.optim import Lion
from tests.hooks.cases import CASES, STEPS, Waves, loss_of, plain
from tests.hooks.loops import Witness, batch, check, net, numbered, state_of


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", CASES)
def test_the_numbers_of_every_loop(name: str, tmp_path: Path) -> None:
    model, optimizer = CASES[name].build()
    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(
            model, optimizer, run=tmp_path / "run", strict=True, histograms=True
        ) as scope,
    ):
        CASES[name].loop(model, optimizer)
        assert scope.step == STEPS
    run = dynoscope.open_run(tmp_path / "run")
    for seen in witness.steps:
        if not type(optimizer).__name__.startswith(("SGD", "Adam")):
            seen.momentum = {}  # SparseAdam's is not known
    check(run, numbered(witness.steps))
    sizes = {x["name"]: x["numel"] for x in run.manifest["layers"]}
    assert sizes == {n: w.size for n, w in witness.steps[0].weight.items()}
    counted = run.histograms()
    assert {sum(c) for c in counted["counts"]} == set(sizes.values())


@pytest.mark.parametrize("name", CASES)
def test_every_loop_is_bit_identical(name: str, tmp_path: Path) -> None:
    ends = []
    for watching in (False, True):
        model, optimizer = CASES[name].build()
        scope = (
            dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True)
            if watching
            else contextlib.nullcontext()
        )
        with scope:
            CASES[name].loop(model, optimizer)
        ends.append(state_of(model, optimizer))
    assert ends[0] == ends[1]


def test_rows_of_a_complex_matrix(tmp_path: Path) -> None:
    model = Waves()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True),
    ):
        plain(model, optimizer)
    neurons = dynoscope.open_run(tmp_path / "run").neurons()
    assert set(neurons["layer"]) == {"first", "second"}
    for row in neurons.to_dict("records"):
        w = witness.steps[row["step"]].weight[row["layer"]]
        norms = np.linalg.norm(
            w.reshape(200 if row["layer"] == "second" else 12, -1), axis=1
        )
        assert row["weight_norm_mean"] == pytest.approx(norms.mean(), rel=1e-5)
        assert row["weight_norm_max"] == pytest.approx(norms.max(), rel=1e-5)


def test_bfloat16_updates_that_round_away(tmp_path: Path) -> None:
    """A step of 1e-4 leaves bfloat16 weights near 1 where they are."""
    model = nn.Linear(300, 200).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[:50].zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        model.weight.sum().backward()
        optimizer.step()
    rows = dynoscope.open_run(tmp_path / "run").layers("unmoved_share", "weight")
    assert rows["unmoved_share"].item() == pytest.approx(0.75)


@contextlib.contextmanager
def global_hooks(said: list[str]) -> Iterator[None]:
    before = register_optimizer_step_pre_hook(lambda *_: said.append("first"))
    after = register_optimizer_step_post_hook(lambda *_: said.append("last"))
    yield
    before.remove()
    after.remove()


def test_hooks_of_the_users_own_run_as_before(tmp_path: Path) -> None:
    said: list[str] = []
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def doubling(_: Any, args: Any, kwargs: Any) -> None:
        said.append("pre")
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(2)

    before = optimizer.register_step_pre_hook(doubling)
    after = optimizer.register_step_post_hook(lambda *_: said.append("post"))
    with (
        global_hooks(said),
        Witness(model, optimizer) as witness,
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True),
    ):
        plain(model, optimizer)
    assert said == ["first", "pre", "post", "last"] * STEPS
    assert len(optimizer._optimizer_step_pre_hooks) == 1
    check(dynoscope.open_run(tmp_path / "run"), numbered(witness.steps))
    before.remove()
    after.remove()


def test_logged_gradient_norms_stand_beside_what_was_clipped(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of(model).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            scope.log(grad_norm=norm)
            norms.append(norm.item())
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    logged = run.scalars("grad_norm")
    assert logged["step"].tolist() == list(range(STEPS))
    assert logged["value"].tolist() == norms
    clipped = run.layers("grad_l2", "*")["grad_l2"]
    assert clipped.tolist() == pytest.approx([0.01] * STEPS, rel=1e-4)


def test_a_learning_rate_in_a_tensor_is_taken_as_it_was(tmp_path: Path) -> None:
    model, rate = net(), torch.tensor(0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for _ in range(STEPS):
            loss_of(model).backward()
            optimizer.step()
            rate.mul_(0.5)
    groups = dynoscope.open_run(tmp_path / "run").groups()
    assert groups["lr"].tolist() == [0.5, 0.25, 0.125, 0.0625]


def test_complex_numbers_are_not_logged(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope,
        pytest.raises(TypeError, match="takes a real number"),
    ):
        scope.log(loss=torch.ones((), dtype=torch.complex64))


def test_weights_that_become_others_in_place(tmp_path: Path) -> None:
    """The parameters stay the same objects, their data do not."""
    torch.manual_seed(4)
    model: Any = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.Linear(576, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        Witness(model, optimizer) as witness,
        dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True),
    ):
        for options in (
            {},
            {"memory_format": torch.channels_last},
            {"dtype": torch.bfloat16},
            {"dtype": torch.float64},
        ):
            optimizer.zero_grad()
            model.to(**options)
            inputs = torch.randn(2, 3, 5, 5, dtype=model[0].weight.dtype)
            model(inputs).square().mean().backward()
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    check(run, numbered(witness.steps))
    assert len(run.problems) == 3
    assert all("replaced under the same names" in each for each in run.problems)


@pytest.mark.usefixtures("kernel")
def test_a_sign_hides_nan_from_the_weight_and_not_from_us(tmp_path: Path) -> None:
    """sign(NaN) is 0: Lion's momentum is lost, and its weight looks well."""
    weight = nn.Parameter(torch.ones(4, 3))
    model = nn.ParameterDict({"weight": weight})
    optimizer = Lion(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for index in range(3):
            weight.grad = torch.ones(4, 3)
            if index == 1:
                weight.grad[2, 1] = torch.nan
            optimizer.step()
    rows = dynoscope.open_run(tmp_path / "run").layers(layer="weight")
    assert weight.isfinite().all()
    assert rows["nonfinite"].tolist() == [0, 2, 1]  # gradient and momentum
    assert rows["weight_norm"].notna().all()


def test_on_demand_with_complex_weights(tmp_path: Path) -> None:
    model = Waves()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = [batch() for _ in range(2)]

    def loss_fn(model: nn.Module, data: Any) -> Tensor:
        return functional.cross_entropy(model(data[0]), data[1])

    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True) as scope:
        found = scope.measure_full_gradient(data, loss_fn).set_index("layer")
        probed = scope.probe_scale_invariance(lambda m: loss_fn(m, data[0]))
    loss = torch.stack([loss_fn(model, each) for each in data]).mean()
    grads = torch.autograd.grad(loss, list(model.parameters()))
    for (name, _), grad in zip(model.named_parameters(), grads, strict=True):
        flat = np.abs(np.concatenate([grad.real.ravel(), grad.imag.ravel()]))
        row: Any = found.loc[name]
        assert row["numel"] == flat.size
        assert row["grad_l1"] == pytest.approx(flat.sum(), rel=1e-5)
        assert row["grad_l2"] == pytest.approx(np.linalg.norm(flat), rel=1e-5)
    assert set(probed["granularity"]) == {"none"}
