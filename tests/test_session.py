"""`watch` from the outside: it changes nothing, leaves nothing, and says why not."""

import contextlib
import copy
import io
import pickle
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dynoscope
from dynoscope.errors import RunExistsError, ScheduleError, UnwatchableError
from tests.networks import OPTIMIZERS, MixedNet, train


def fresh(name: str) -> tuple[MixedNet, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model = MixedNet()
    return model, OPTIMIZERS[name](model)


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    """Everything that training changes, to the last bit."""
    buffer = io.BytesIO()
    content = (model.state_dict(), optimizer.state_dict(), torch.get_rng_state())
    torch.save(content, buffer)
    return buffer.getvalue()


def losses_of(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int
) -> list[float]:
    losses: list[float] = []
    train(model, optimizer, steps, lambda loss: losses.append(loss.item()))
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_watched_training_is_bit_identical(name: str, tmp_path: Path) -> None:
    outcomes, losses = [], []
    for watched in (False, True):
        model, optimizer = fresh(name)
        scope = (
            dynoscope.watch(
                model, optimizer, run=tmp_path / "run", histograms=True, strict=True
            )
            if watched
            else contextlib.nullcontext()
        )
        with scope:
            losses.append(losses_of(model, optimizer, 200))
        outcomes.append(state_of(model, optimizer))
    assert losses[0] == losses[1]
    assert outcomes[0] == outcomes[1]


def hooks_of(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(
        optimizer._optimizer_step_post_hooks
    )


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    before = threading.active_count()
    with dynoscope.watch(model, optimizer, run=tmp_path / "run"):
        assert hooks_of(optimizer) == 2
        assert threading.active_count() == before + 1
        train(model, optimizer, 3)
    assert hooks_of(optimizer) == 0
    assert threading.active_count() == before


def test_an_exception_passes_unchanged_and_is_recorded(tmp_path: Path) -> None:
    model, optimizer = fresh("lion")
    before = threading.active_count()
    error = ArithmeticError("loss is 7")

    def fail(loss: torch.Tensor) -> None:
        if scope.step == 3:
            raise error

    with (
        pytest.raises(ArithmeticError) as caught,
        dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope,
    ):
        train(model, optimizer, 5, fail)
    assert caught.value is error
    assert hooks_of(optimizer) == 0
    assert threading.active_count() == before
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "failed"
    assert run.exception == "ArithmeticError: loss is 7"
    assert run.layers()["step"].nunique() == 3


def test_watched_objects_copy_and_pickle(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    with dynoscope.watch(model, optimizer, run=tmp_path / "run"):
        train(model, optimizer, 2)
        twin = copy.deepcopy(model)
        copied = pickle.loads(pickle.dumps(optimizer))
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert hooks_of(copied) == 0


def test_scalars_belong_to_the_update_of_their_iteration(tmp_path: Path) -> None:
    model, optimizer = fresh("sgd")
    with dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope:
        for _ in range(4):
            scope.log(early=torch.tensor(float(scope.step)))
            train(model, optimizer, 1)
            scope.log(late=scope.step - 1, twice=torch.ones(1))
        scope.log(step=17, late=3.5)
    rows = dynoscope.open_run(tmp_path / "run").scalars(["early", "late"])
    assert rows[rows.name == "early"]["step"].tolist() == [0, 1, 2, 3]
    assert rows[rows.name == "late"]["step"].tolist() == [0, 1, 2, 3, 17]
    assert (rows["value"] == rows["step"]).sum() == 8


def test_a_logged_tensor_is_taken_as_it_is_now(tmp_path: Path) -> None:
    model, optimizer = fresh("sgd")
    running = torch.zeros(())
    with dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope:
        for _ in range(3):
            train(model, optimizer, 1)
            running += 1
            scope.log(running=running)
    values = dynoscope.open_run(tmp_path / "run").scalars("running")["value"]
    assert values.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("bad", [torch.zeros(3), "high", None])
def test_only_numbers_are_logged(bad: Any, tmp_path: Path) -> None:
    model, optimizer = fresh("sgd")
    with (
        pytest.raises(TypeError, match=re.escape("scope.log(loss=...)")),
        dynoscope.watch(model, optimizer, run=tmp_path / "run") as scope,
    ):
        scope.log(loss=bad)


def test_every_measures_each_nth_step(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", every=3) as scope:
        train(model, optimizer, 8)
        assert scope.step == 8
    steps = dynoscope.open_run(tmp_path / "run").layers()["step"].unique()
    assert steps.tolist() == [0, 3, 6]


def test_include_and_exclude_choose_layers(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", include=["weight"], exclude=r"^norm\."
    ):
        train(model, optimizer, 1)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.layer_names == [
        "stem.0.weight",
        "stem.1.weight",
        "depthwise.weight",
        "embedding.weight",
        "project.weight",
    ]
    assert run.manifest["unwatched"]["norm.weight"] == "excluded"


def test_without_a_name_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, optimizer = fresh("adamw")
    paths = []
    for _ in range(2):
        with dynoscope.watch(model, optimizer) as scope:
            train(model, optimizer, 1)
        paths.append(scope.run)
    assert paths[0] != paths[1]
    assert all(re.match(r"runs/\d{4}-\d\d-\d\d_\d{6}-MixedNet", str(p)) for p in paths)
    assert len(dynoscope.find_runs("runs")) == 2


def test_leaving_says_where_the_run_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer = fresh("adamw")
    with dynoscope.watch(model, optimizer, run=tmp_path / "run"):
        train(model, optimizer, 2)
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert f"10 findings: dynoscope findings {tmp_path / 'run'}" in said
    assert f"2 steps measured, in {tmp_path / 'run'}" in said
    assert f"dynoscope dash {tmp_path}" in said
    with dynoscope.watch(model, optimizer, run=tmp_path / "two", quiet=True):
        train(model, optimizer, 2)
    assert capsys.readouterr().out == ""


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    run = tmp_path / "run"
    with dynoscope.watch(model, optimizer, run=run):
        train(model, optimizer, 3)
    with (
        pytest.raises(RunExistsError, match=r"resume=True.*overwrite=True"),
        dynoscope.watch(model, optimizer, run=run),
    ):
        pass
    with dynoscope.watch(model, optimizer, run=run, overwrite=True):
        train(model, optimizer, 2)
    assert dynoscope.open_run(run).layers()["step"].unique().tolist() == [0, 1]


def test_resume_goes_on_after_the_last_recorded_step(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    run = tmp_path / "run"
    with dynoscope.watch(model, optimizer, run=run):
        train(model, optimizer, 3)
    with dynoscope.watch(model, optimizer, run=run, resume=True) as scope:
        assert scope.step == 3
        train(model, optimizer, 2, lambda loss: scope.log(loss=loss))
    opened = dynoscope.open_run(run)
    assert opened.layers()["step"].unique().tolist() == [0, 1, 2, 3, 4]
    assert opened.scalars("loss")["step"].tolist() == [3, 4]


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    (tmp_path / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with (
            pytest.raises(RunExistsError, match="not a dynoscope run"),
            dynoscope.watch(model, optimizer, run=tmp_path, overwrite=overwrite),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_running_run_is_not_replaced(tmp_path: Path) -> None:
    first, second = fresh("adamw"), fresh("adamw")
    with (
        dynoscope.watch(*first, run=tmp_path / "run"),
        pytest.raises(RunExistsError, match="being written"),
        dynoscope.watch(*second, run=tmp_path / "run", overwrite=True),
    ):
        pass


def test_an_optimizer_is_watched_once(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    with dynoscope.watch(model, optimizer, run=tmp_path / "a"):
        with (
            pytest.raises(UnwatchableError, match="watched already"),
            dynoscope.watch(model, optimizer, run=tmp_path / "b"),
        ):
            pass
        train(model, optimizer, 1)
    assert not (tmp_path / "b").exists()
    assert dynoscope.open_run(tmp_path / "a").last_step == 0


def test_a_parameter_is_in_one_watch(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    other = torch.optim.SGD([model.temperature], lr=0.1)
    with (
        dynoscope.watch(model, optimizer, run=tmp_path / "a"),
        pytest.raises(UnwatchableError, match=r"'temperature' is in two watched"),
        dynoscope.watch(model, other, run=tmp_path / "b"),
    ):
        pass


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    stranger = torch.optim.SGD(MixedNet().parameters(), lr=0.1)
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (model, stranger, {}, UnwatchableError, "moves no parameter of this MixedNet"),
        (optimizer, model, {}, UnwatchableError, "not a torch.nn.Module"),
        (model, "adamw", {}, UnwatchableError, "not a torch.optim.Optimizer"),
        (model, [optimizer, optimizer], {}, UnwatchableError, "given twice"),
        (model, [], {}, UnwatchableError, "no optimizer is given"),
        ([], optimizer, {}, UnwatchableError, "or several of them"),
        (model, [optimizer, stranger], {}, UnwatchableError, "SGD moves no parameter"),
        (model, optimizer, {"every": 0}, ScheduleError, "every=0"),
        (model, optimizer, {"every": 1.5}, ScheduleError, "every=1.5"),
        (model, optimizer, {"include": "("}, UnwatchableError, "regular expression"),
        (model, optimizer, {"include": "nope"}, UnwatchableError, "stem.0.weight"),
        (
            model,
            optimizer,
            {"resume": True, "overwrite": True},
            UnwatchableError,
            "exclude each other",
        ),
    ]
    for first, second, options, error, message in cases:
        with (
            pytest.raises(error, match=re.escape(message)),
            dynoscope.watch(first, second, run=tmp_path / "run", **options),
        ):
            pass
        assert not (tmp_path / "run").exists()
    assert hooks_of(optimizer) == 0


def test_config_takes_what_people_have(tmp_path: Path) -> None:
    import argparse

    model, optimizer = fresh("adamw")
    config = argparse.Namespace(lr=1e-3, nested={"path": tmp_path, "t": (1, 2)})
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", config=config):
        train(model, optimizer, 1)
    assert dynoscope.open_run(tmp_path / "run").config == {
        "lr": 1e-3,
        "nested": {"path": str(tmp_path), "t": [1, 2]},
    }


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    model, optimizer = fresh("adamw")
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match=r"pass another run=.*file/run"),
        dynoscope.watch(model, optimizer, run=tmp_path / "file" / "run"),
    ):
        pass
