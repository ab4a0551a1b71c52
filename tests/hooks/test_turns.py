"""Layers that take turns: what is measured is what it is without."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import dynoscope
from dynoscope.errors import RunExistsError, ScheduleError
from dynoscope.hooks import Turns, find_watched
from dynoscope.hooks.follower import followers_of
from dynoscope.optim import NormGD
from dynoscope.reader import Run
from dynoscope.schema import TABLES
from tests.hooks.test_several import moves, play, players
from tests.networks import OPTIMIZERS, MixedNet, train

STEPS = 12


def evaluate(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Loss and gradients, as a closure gives them."""
    model.zero_grad()
    loss: torch.Tensor = model(batch).square().mean()
    loss.backward()
    return loss


def record(run: Path, kind: str = "adamw", **options: Any) -> Run:
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS[kind](model)
    with dynoscope.watch(
        model, optimizer, run=run, **{"strict": True, "quiet": True, **options}
    ):
        train(model, optimizer, STEPS)
    return dynoscope.open_run(run)


def assert_rows_of(turned: Run, plain: Run) -> None:
    """What is measured is the same to the last bit, in the rows that there are."""
    measured = TABLES["layers"].names("measured", "setting")
    # It follows the run, and goes on at the steps that there are.
    columns = [name for name in measured if name != "effective_weight_decay"]
    assert_same(turned.layers(columns), plain.layers(columns))
    assert_same(turned.neurons(), plain.neurons())
    assert_same(turned.groups(), plain.groups(), "group")


def assert_same(some: pd.DataFrame, all_of: pd.DataFrame, key: str = "layer") -> None:
    keys = ["step", key]
    wanted = some[keys].merge(all_of, on=keys)
    pd.testing.assert_frame_equal(some.reset_index(drop=True), wanted)
    assert len(some)


@pytest.mark.parametrize("kind", ["adamw", "boxed"])
@pytest.mark.parametrize("every", [1, 2])
def test_rows_are_those_of_a_run_without_turns(
    kind: str, every: int, tmp_path: Path, kernel: None
) -> None:
    plain = record(tmp_path / "plain", kind)
    turned = record(tmp_path / "turned", kind, every=every, turns=3)
    assert_rows_of(turned, plain)
    for entry in turned.manifest["layers"]:
        steps = turned.layers("weight_norm", entry["name"])["step"]
        assert steps.tolist() == list(range(every * entry["turn"], STEPS, 3 * every))


def test_each_turn_takes_its_share_of_the_memory(kernel: None) -> None:
    layers = [nn.Linear(300, 200, bias=False) for _ in range(7)]
    layers.append(nn.Linear(300, 400, bias=False))
    model = nn.ModuleList(layers)
    optimizer = torch.optim.AdamW(model.parameters())
    kept = {}
    for count in (1, 3, 4, 100):
        turns = Turns(count)
        watched = turns.dealt(find_watched(model, optimizer))
        kept[count] = followers_of(watched, None)[0].kept_nbytes
        numbers = [turns.at(step) for step in range(2 * min(count, 8))]
        assert numbers == [*range(min(count, 8))] * 2
    row = 300 * 200 * 4  # 9 of them in all
    assert kept == {1: 9 * row, 3: 3 * row, 4: 3 * row, 100: 2 * row}


def test_the_training_is_not_changed(tmp_path: Path) -> None:
    weights = []
    for turns in (None, 3):
        torch.manual_seed(0)
        model = MixedNet()
        optimizer = OPTIMIZERS["adamw"](model)
        if turns is None:
            train(model, optimizer, 5)
        else:
            with dynoscope.watch(model, optimizer, turns=turns, run=tmp_path / "run"):
                train(model, optimizer, 5)
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(map(torch.equal, *weights))


def test_several_optimizers(tmp_path: Path) -> None:
    found = []
    for turns in (1, 3):
        models = players()
        optimizers, run = moves(models), tmp_path / str(turns)
        torch.manual_seed(1)
        with dynoscope.watch(
            models, optimizers, run=run, every=1, turns=turns, strict=True, quiet=True
        ):
            play(models, optimizers, 9)
        found.append(dynoscope.open_run(run))
    assert_rows_of(found[1], found[0])
    turns_of = {la["name"]: la["turn"] for la in found[1].manifest["layers"]}
    for player in ("critic", "maker"):  # each has layers in each turn
        mine = {turn for name, turn in turns_of.items() if name.startswith(player)}
        assert mine == {0, 1, 2}


def test_histograms_are_of_all_layers(tmp_path: Path) -> None:
    found = [
        record(tmp_path / str(turns), every=1, turns=turns, histograms=True)
        for turns in (1, 3)
    ]
    a, b = (
        run.histograms().sort_values(["step", "layer", "quantity"]) for run in found
    )
    pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True))


def test_a_closure_computes_gradients_inside_the_step(tmp_path: Path) -> None:
    found = []
    for turns in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        run = tmp_path / str(turns)
        with dynoscope.watch(
            model, optimizer, run=run, every=1, turns=turns, strict=True, quiet=True
        ):
            for _ in range(6):
                optimizer.step(functools.partial(evaluate, model, torch.randn(8, 4)))
        found.append(dynoscope.open_run(run))
    assert_rows_of(found[1], found[0])


def test_a_resumed_training_goes_on_with_the_turn_that_is_due(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS["adamw"](model)
    options: dict[str, Any] = {"every": 1, "turns": 3, "strict": True, "quiet": True}
    for steps in (5, 7):
        with dynoscope.watch(
            model, optimizer, run=tmp_path / "run", resume=True, **options
        ):
            train(model, optimizer, steps)
    run = dynoscope.open_run(tmp_path / "run")
    for entry in run.manifest["layers"]:
        steps_of = run.layers("weight_norm", entry["name"])["step"]
        assert steps_of.tolist() == list(range(entry["turn"], 12, 3))
    with (
        pytest.raises(RunExistsError, match=r"measured at other turns.*turns="),
        dynoscope.watch(
            model,
            optimizer,
            run=tmp_path / "run",
            resume=True,
            **options | {"turns": 2},
        ),
    ):
        pass


def test_layers_that_come_later_leave_the_others_their_turns(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20), nn.Linear(20, 20))
    optimizer = torch.optim.SGD(model[:2].parameters(), lr=0.1)
    turns = Turns(2)
    before = turns.dealt(find_watched(model, optimizer)).subject.layers
    optimizer.add_param_group({"params": model[2].parameters()})
    after = turns.dealt(find_watched(model, optimizer)).subject.layers
    assert [la.turn for la in after[: len(before)]] == [la.turn for la in before]
    assert {la.turn for la in after[len(before) :]} == {0, 1}


def test_normgd_is_not_predicted_from_some_of_its_layers(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))
    optimizer = NormGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", every=1, turns=2, quiet=True
    ):
        for _ in range(4):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    run = dynoscope.open_run(tmp_path / "run")
    assert run.layers("pred_weight_norm")["pred_weight_norm"].isna().all()
    assert any("take turns" in problem for problem in run.problems)


@pytest.mark.parametrize("turns", [0, -1, 2.5, True, "4"])
def test_what_is_no_number_of_turns(turns: Any, tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(ScheduleError, match="turns=4"),
        dynoscope.watch(model, optimizer, run=tmp_path / "run", turns=turns),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_a_layer_is_predicted_from_one_of_its_turns_to_the_next(tmp_path: Path) -> None:
    """As if every third step were measured."""
    plain = record(tmp_path / "plain", every=3)
    turned = record(tmp_path / "turned", every=1, turns=3)
    first = [la["name"] for la in turned.manifest["layers"] if la["turn"] == 0]
    a, b = (
        run.layers(layer=first).drop(columns="wall_time") for run in (plain, turned)
    )
    assert np.array_equal(a["step"], b["step"])
    pd.testing.assert_frame_equal(a, b)
