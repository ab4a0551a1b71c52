"""Where a run that is resumed goes on, and what is refused or noted."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dynoscope
from dynoscope.dashboard import store as store_module
from dynoscope.dashboard.store import Store
from dynoscope.errors import RunExistsError, UnwatchableError
from tests.dashboard.runs import columns_of
from tests.networks import OPTIMIZERS, MixedNet, train

Live = tuple[torch.nn.Module, torch.optim.Optimizer]


def live(name: str) -> Live:
    torch.manual_seed(0)
    model = MixedNet()
    return model, OPTIMIZERS[name](model)


def record(run: Path, training: Live, steps: int, **options: Any) -> dynoscope.Run:
    """Watch some steps of a training."""
    with dynoscope.watch(*training, run=run, quiet=True, **options):
        train(*training, steps)
    return dynoscope.open_run(run)


def steps_of(run: dynoscope.Run) -> list[int]:
    steps: list[int] = run.layers()["step"].unique().tolist()
    return steps


def test_without_a_count_the_run_goes_on_after_its_end(tmp_path: Path) -> None:
    training = live("lion")
    record(tmp_path / "run", training, 8, every=3)
    run = record(tmp_path / "run", training, 4, every=3, resume=True)
    assert steps_of(run) == [0, 3, 6, 9]  # 7 and 8 were taken, though not measured
    assert run.branches == []
    (problem,) = run.problems
    assert "Lion does not say how many steps it has taken" in problem
    assert "goes on at step 8" in problem
    assert "start_step=" in problem


def test_an_optimizer_that_had_stepped_before_is_counted_from_there(
    tmp_path: Path,
) -> None:
    training = live("adamw")
    train(*training, 7)
    record(tmp_path / "run", training, 4)
    saved = copy.deepcopy(training[1].state_dict())
    record(tmp_path / "run", training, 6, resume=True)
    training[1].load_state_dict(saved)
    run = record(tmp_path / "run", training, 1, resume=True)
    assert steps_of(run) == [0, 1, 2, 3, 4]
    assert [branch.last_step for branch in run.branches] == [9]
    train(*(stranger := live("adamw")), 3)
    with pytest.raises(
        UnwatchableError, match=r"3 steps, fewer than the 7 .*start_step"
    ):
        record(tmp_path / "run", stranger, 1, resume=True)


def test_a_run_is_resumed_again_and_again(tmp_path: Path) -> None:
    training = live("adamw")
    first = record(tmp_path / "run", training, 10, config={"seed": 1})
    for start, steps in ((6, 10), (12, 2), (3, 1)):
        options = {"resume": True, "start_step": start}
        run = record(tmp_path / "run", training, steps, **options)
    assert steps_of(run) == [0, 1, 2, 3]
    assert [steps_of(branch) for branch in run.branches] == [
        [6, 7, 8, 9],
        [12, 13, 14, 15],
        [*range(3, 14)],
    ]
    manifest = run.manifest
    assert manifest["created"] == first.manifest["created"]
    assert manifest["config"] == {"seed": 1}
    resumed = [(entry["step"], entry["branch"]) for entry in manifest["resumed"]]
    assert resumed == [(6, "001"), (12, "002"), (3, "003")]
    assert manifest["progress"]["measured"] == 4
    assert not run.layers().duplicated(["step", "layer"]).any()


def test_a_gap_is_noted(tmp_path: Path) -> None:
    training = live("adamw")
    record(tmp_path / "run", training, 3, every=1)
    train(*training, 4)
    run = record(tmp_path / "run", training, 1, resume=True)
    assert steps_of(run) == [0, 1, 2, 7]
    assert run.problems == [
        "steps 3 to 6 were not recorded: they were lost, or taken without dynoscope"
    ]


def test_steps_that_an_overflow_undoes_are_noted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu")

    def step(scale: float) -> None:
        scaler.scale(model(torch.ones(1, 4)).sum() * scale).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        step(1.0)
        saved = copy.deepcopy(optimizer.state_dict())
        for scale in (1.0, float("inf"), 1.0, 1.0):
            step(scale)
    optimizer.load_state_dict(saved)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", quiet=True, resume=True
    ) as scope:
        pass
    assert scope.step == 1
    problem, never_stepped = dynoscope.open_run(tmp_path / "run").problems
    assert "never stepped" in never_stepped
    assert "of the steps 0 to 4, 1 did nothing" in problem


def test_another_model_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    training = live("adamw")
    record(run, training, 2)
    before = {path: path.stat() for path in run.rglob("*")}
    model = torch.nn.ModuleDict(dict(training[0].named_children()))
    model["norm"] = torch.nn.LayerNorm(12)
    model["more"] = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    with (
        pytest.raises(RunExistsError) as caught,
        dynoscope.watch(model, optimizer, run=run, resume=True),
    ):
        pass
    assert "other layers" in str(caught.value)
    assert "missing: temperature;" in str(caught.value)
    assert "new: more.weight, more.bias;" in str(caught.value)
    assert "norm.weight (12,), was (24,), norm.bias" in str(caught.value)
    assert {path: path.stat() for path in run.rglob("*")} == before


def test_another_optimizer_is_noted(tmp_path: Path) -> None:
    model, _ = training = live("adamw")
    record(tmp_path / "run", training, 4)
    run = record(
        tmp_path / "run", (model, OPTIMIZERS["lion"](model)), 4,
        resume=True, start_step=4, strict=True,
    )  # fmt: skip
    assert "from step 4 on by Lion, until then by AdamW" in run.problems[0]
    first = run.layers(["weight_norm", "traj_weight_norm"], "stem.0.weight", 4)
    np.testing.assert_allclose(
        first["traj_weight_norm"], first["weight_norm"], rtol=1e-6
    )
    # and the time after that, predictions go on from there
    assert run.manifest["changes"] == [4]


@pytest.mark.parametrize("bad", [-1, 1.5, True, "3"])
def test_a_start_that_makes_no_sense_is_refused(bad: Any, tmp_path: Path) -> None:
    with pytest.raises(UnwatchableError, match=f"start_step={bad!r}"):
        record(tmp_path / "run", live("adamw"), 1, start_step=bad, resume=True)
    assert not (tmp_path / "run").exists()


def test_a_new_run_may_start_at_any_step(tmp_path: Path) -> None:
    run = record(tmp_path / "run", live("sgd"), 2, start_step=40, resume=True)
    assert steps_of(run) == [40, 41]
    assert run.problems == []


def test_overwriting_takes_the_branches_along(tmp_path: Path) -> None:
    training = live("adamw")
    record(tmp_path / "run", training, 4)
    record(tmp_path / "run", training, 1, resume=True, start_step=2)
    run = record(tmp_path / "run", training, 1, overwrite=True)
    assert run.branches == []
    assert run.manifest["resumed"] == []


def test_damage_does_not_keep_a_run_from_being_resumed(tmp_path: Path) -> None:
    training = live("adamw")
    record(tmp_path / "run", training, 4)
    (tmp_path / "run" / "groups" / "part-00000000.parquet").write_bytes(b"PAR1")
    with pytest.warns(dynoscope.DynoscopeWarning, match="groups/part-00000000"):
        run = record(tmp_path / "run", training, 2, resume=True)
    assert steps_of(run) == [0, 1, 2, 3, 4, 5]
    norms = run.layers("traj_weight_norm", "stem.0.weight")["traj_weight_norm"]
    assert np.isfinite(norms).all()


def test_an_open_dashboard_shows_the_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PAUSE", 0.0)
    training = live("adamw")
    record(tmp_path / "run", training, 6)
    store = Store(tmp_path)

    def look() -> list[int]:
        store.scan()
        store.refresh(["run"])
        steps, _ = columns_of(store.states(["run"])["run"], "stem.0.weight")
        return [*map(int, steps)]

    assert look() == [0, 1, 2, 3, 4, 5]
    seen = []
    with dynoscope.watch(
        *training, run=tmp_path / "run", quiet=True, resume=True, start_step=2
    ):
        seen.append(look())
        train(*training, 2)
    seen.append(look())
    assert seen == [[0, 1], [0, 1, 2, 3]]
