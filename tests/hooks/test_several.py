"""Several optimizers and models in one watch, and parameters that come and go."""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import dynoscope
from dynoscope.errors import UnwatchableError
from dynoscope.optim import Lion

Players: TypeAlias = dict[str, nn.Module]
Moves: TypeAlias = dict[str, torch.optim.Optimizer]


def players() -> Players:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 1))
    maker = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Linear(16, 6))
    return {"critic": critic, "maker": maker}


def moves(models: Players) -> Moves:
    critic, maker = models["critic"].parameters(), models["maker"].parameters()
    return {
        "critic": torch.optim.AdamW(critic, lr=1e-3, weight_decay=0.1),
        "maker": Lion(maker, lr=1e-3, weight_decay=0.5),
    }


def play(models: Players, optimizers: Moves, rounds: int, ratio: int = 1) -> None:
    """A game in which the critic moves `ratio` times for each move of the maker."""
    for index in range(rounds * ratio):
        made = models["maker"](torch.randn(8, 3))
        real = torch.randn(8, 6)
        scores = models["critic"](real).mean() - models["critic"](made.detach()).mean()
        optimizers["critic"].zero_grad()
        scores.backward()
        optimizers["critic"].step()
        if index % ratio == ratio - 1:
            optimizers["maker"].zero_grad()
            models["critic"](models["maker"](torch.randn(8, 3))).mean().backward()
            optimizers["maker"].step()


def parts(value: Any) -> Any:
    return list(value.values())


@contextlib.contextmanager
def snapshots(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[list[Any]]:
    """Weights before and after every step, and gradients, in float64."""
    taken: list[Any] = []

    def copied(values: Callable[[Tensor], Tensor | None]) -> dict[str, Tensor]:
        found = {name: values(p) for name, p in model.named_parameters()}
        return {
            k: v.detach().double().clone() for k, v in found.items() if v is not None
        }

    before = optimizer.register_step_pre_hook(
        lambda *_: taken.append([copied(lambda p: p), copied(lambda p: p.grad)])
    )
    after = optimizer.register_step_post_hook(
        lambda *_: taken[-1].append(copied(lambda p: p))
    )
    yield taken
    before.remove()
    after.remove()


def check(rows: pd.DataFrame, prefix: str, taken: list[Any]) -> None:
    """Rows of one model's layers against what was copied at its steps."""
    steps = sorted(rows["step"].unique())
    assert len(steps) == len(taken)
    indexed = rows.set_index(["step", "layer"])
    for step, (weights, grads, after) in zip(steps, taken, strict=True):
        for name, w in weights.items():
            row: Any = indexed.loc[(step, prefix + name)]
            d = after[name] - w
            assert row["weight_norm"] == pytest.approx(float(w.norm()), rel=1e-5)
            assert row["update_norm"] == pytest.approx(float(d.norm()), rel=1e-4)
            assert row["grad_l1"] == pytest.approx(
                float(grads[name].abs().sum()), rel=1e-5
            )


@pytest.mark.parametrize("ratio", [1, 3])
def test_the_numbers_of_two_optimizers_in_turn(ratio: int, tmp_path: Path) -> None:
    models = players()
    optimizers = moves(models)
    with contextlib.ExitStack() as stack:
        taken = {
            name: stack.enter_context(snapshots(models[name], optimizers[name]))
            for name in models
        }
        scope = stack.enter_context(
            dynoscope.watch(
                models, optimizers, run=tmp_path / "run", strict=True, histograms=True
            )
        )
        play(models, optimizers, 6, ratio)
        assert scope.step == 6 * ratio
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers()
    for name in models:
        own = rows[rows["layer"].str.startswith(name)]
        check(own, f"{name}.", taken[name])
    makers = rows[rows["layer"].str.startswith("maker")]["step"].unique()
    assert makers.tolist() == list(range(ratio - 1, 6 * ratio, ratio))
    assert run.manifest["optimizer"]["name"] == "AdamW + Lion"
    assert run.manifest["model"]["name"] == "Sequential + Sequential"
    groups = run.groups()
    assert set(zip(groups["step"], groups["group"], strict=True)) == {
        *((step, 0) for step in range(6 * ratio)),
        *((step, 1) for step in makers),
    }
    assert not groups["lr"].isna().any()
    whole = run.layers("update_norm", "*")
    for step in makers:
        both = rows[rows["step"] == step]["update_norm"]
        at = whole[whole["step"] == step]["update_norm"].item()
        assert at == pytest.approx(np.sqrt((both**2).sum()), rel=1e-4)
    assert run.neurons()["layer"].nunique() == 4
    binned = run.histograms()
    assert set(binned[binned["layer"].str.startswith("maker")]["step"]) <= {*makers}


def test_together_is_as_alone(tmp_path: Path) -> None:
    """Predictions too: each optimizer is followed by the count of its own steps."""
    ratio = 2
    for together in (True, False):
        models = players()
        optimizers = moves(models)
        with contextlib.ExitStack() as stack:
            if together:
                stack.enter_context(
                    dynoscope.watch(models, optimizers, run=tmp_path / "both")
                )
            else:
                for name in models:
                    stack.enter_context(
                        dynoscope.watch(
                            models[name], optimizers[name], run=tmp_path / name
                        )
                    )
            play(models, optimizers, 8, ratio)
    both = dynoscope.open_run(tmp_path / "both").layers()
    for name in ("critic", "maker"):
        alone = dynoscope.open_run(tmp_path / name).layers()
        joint = both[both["layer"].str.startswith(name)].reset_index(drop=True)
        columns = [c for c in alone.columns if c not in ("step", "layer", "wall_time")]
        pd.testing.assert_frame_equal(joint[columns], alone[columns], rtol=1e-5)
    channels = dynoscope.open_run(tmp_path / "both").normalization()
    alone = dynoscope.open_run(tmp_path / "maker").normalization()
    joint = channels[channels["layer"].str.startswith("maker")]
    columns = [c for c in alone.columns if c not in ("step", "layer")]
    pd.testing.assert_frame_equal(
        joint[columns].reset_index(drop=True), alone[columns], rtol=1e-5
    )


def test_watching_two_changes_nothing(tmp_path: Path) -> None:
    ends = []
    for watched in (False, True):
        models = players()
        optimizers = moves(models)
        scope = (
            dynoscope.watch(
                parts(models), parts(optimizers), run=tmp_path / "run", strict=True
            )
            if watched
            else contextlib.nullcontext()
        )
        with scope:
            play(models, optimizers, 20, 2)
        ends.append(copy.deepcopy([m.state_dict() for m in models.values()]))
        assert not any(o._optimizer_step_pre_hooks for o in optimizers.values())
    for a, b in zip(*ends, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    names = dynoscope.open_run(tmp_path / "run").layer_names
    assert names[0] == "0.0.weight"
    assert names[-1] == "1.2.bias"


def test_logged_numbers_belong_to_their_round(tmp_path: Path) -> None:
    models = players()
    optimizers = moves(models)
    with dynoscope.watch(models, optimizers, run=tmp_path / "run") as scope:
        for index in range(4):
            scope.log(early=index)
            play(models, optimizers, 1)
            scope.log(late=index)
    rows = dynoscope.open_run(tmp_path / "run").scalars(["early", "late"])
    assert rows["step"].tolist() == rows["value"].tolist()


def test_an_optimizer_for_each_parameter_in_backward(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    named = dict(model.named_parameters())
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in named.values()}

    def step(parameter: Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]
        optimizers[parameter].zero_grad()  # type: ignore[index]

    for parameter in optimizers:
        parameter.register_post_accumulate_grad_hook(step)
    wanted = []
    with dynoscope.watch(
        model, list(optimizers.values()), run=tmp_path / "run", strict=True
    ) as scope:
        for _ in range(5):
            before = {n: p.detach().double().clone() for n, p in named.items()}
            model(torch.randn(3, 4)).square().sum().backward()
            after = {n: p.detach().double() for n, p in named.items()}
            wanted.append({n: float((after[n] - before[n]).norm()) for n in named})
        assert scope.step == 5
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers(["update_norm", "grad_l2"])
    assert len(rows) == 5 * len(named)
    for row in rows.to_dict("records"):
        update = wanted[row["step"]][row["layer"]]
        assert row["update_norm"] == pytest.approx(update, rel=1e-4)
        assert 0.1 * row["grad_l2"] == pytest.approx(update, rel=1e-4)
    assert run.manifest["optimizer"]["name"] == "6 x SGD"


def fine_tuning() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    head = torch.optim.AdamW(model[2].parameters(), lr=1e-2)
    return model, head


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()


def test_parameters_that_are_added_are_watched_from_then_on(tmp_path: Path) -> None:
    model, optimizer = fine_tuning()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        train(model, optimizer, 3)
        optimizer.add_param_group({"params": model[:2].parameters(), "lr": 1e-4})
        with snapshots(model, optimizer) as taken:
            train(model, optimizer, 3)
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers()
    assert rows["step"].unique().tolist() == list(range(6))
    early = rows[rows["step"] < 3]["layer"].unique()
    assert early.tolist() == ["2.weight", "2.bias"]
    check(rows[rows["step"] >= 3], "", taken)
    assert rows[rows["layer"] == "0.weight"]["lr"].tolist() == [1e-4] * 3
    assert run.layer_names == [name for name, _ in model.named_parameters()]
    assert run.normalization()["step"].tolist() == [3, 4, 5]
    (problem,) = run.problems
    assert "before step 3 (new: 0.bias, 0.weight, 1.bias, 1.weight)" in problem


def test_a_parameter_that_is_replaced_is_followed(tmp_path: Path) -> None:
    model, optimizer = fine_tuning()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        train(model, optimizer, 2)
        model[2] = nn.Linear(8, 5)
        optimizer.param_groups[0]["params"] = list(model[2].parameters())
        with snapshots(model, optimizer) as taken:
            train(model, optimizer, 2)
        taken = [
            [{k: v for k, v in t.items() if k[0] == "2"} for t in s] for s in taken
        ]
        # one is taken out
        del optimizer.param_groups[0]["params"][1]
        train(model, optimizer, 2)
    run = dynoscope.open_run(tmp_path / "run")
    rows = run.layers()
    check(rows[rows["step"].isin([2, 3])], "", taken)
    assert rows[rows["step"] < 2]["numel"].tolist() == [16, 2] * 2
    assert rows[rows["step"].isin([2, 3])]["numel"].tolist() == [40, 5] * 2
    assert rows[rows["step"] > 3]["layer"].tolist() == ["2.weight"] * 2
    assert run.layer_names == ["2.weight", "2.bias"]
    said = "\n".join(run.problems)
    assert "replaced under the same names" in said
    assert "gone: 2.bias" in said


def test_frozen_and_unfrozen(tmp_path: Path) -> None:
    model, _ = fine_tuning()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", strict=True):
        for frozen in (True, False):
            model[0].requires_grad_(not frozen)
            train(model, optimizer, 2)
    rows = dynoscope.open_run(tmp_path / "run").layers(layer="0.weight")
    assert rows["grad_l2"].isna().tolist() == [True, True, False, False]
    assert rows["update_norm"].eq(0).tolist() == [True, True, False, False]


def test_a_parameter_in_two_optimizers_is_said(tmp_path: Path) -> None:
    model, optimizer = fine_tuning()
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(UnwatchableError, match=r"shape \(2, 8\) is in two of"),
        dynoscope.watch(model, [optimizer, other], run=tmp_path / "run"),
    ):
        pass


def test_a_round_that_is_open_at_the_end_is_kept(tmp_path: Path) -> None:
    models = players()
    optimizers = moves(models)
    with dynoscope.watch(models, optimizers, run=tmp_path / "run", strict=True):
        play(models, optimizers, 1)
        for _ in itertools.repeat(None, 2):
            models["critic"](torch.randn(2, 6)).mean().backward()
            optimizers["critic"].step()
    rows = dynoscope.open_run(tmp_path / "run").layers()
    assert rows["step"].unique().tolist() == [0, 1, 2]
