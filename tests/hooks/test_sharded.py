"""Models on several processes, watched, against a single process."""

import functools
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch

import dynoscope
from dynoscope.schedule import FIRST
from tests.hooks.ranks import OPTIMIZERS, OPTIONS, SETUPS, STEPS, Net, train
from tests.hooks.ranks_cases import BROKEN, killed, run_cases
from tests.spawning import exit_codes, spawn

TABLES = ("layers", "neurons", "normalization", "groups", "histograms")
KINDS = pytest.mark.parametrize("kind", OPTIMIZERS)


class Found(NamedTuple):
    """The folder of the runs, and what each process says."""

    folder: Path
    said: list[dict[str, Any]]

    def all_say(self, case: str) -> Any:
        """What all processes found, the same."""
        first = self.said[0][case]
        assert all(said[case] == first for said in self.said)
        return first


def found_by(world: int, folder: Path) -> Found:
    spawn(run_cases, world, folder)
    said = [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(world)]
    return Found(folder, said)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return found_by(2, tmp_path_factory.mktemp("two"))


def single(folder: Path, kind: str, parts: int, **options: Any) -> Path:
    """The run of one process that trains on all of the batch."""
    model = Net()
    optimizer = OPTIMIZERS[kind](model.parameters())
    with dynoscope.watch(model, optimizer, run=folder, strict=True, **options):
        train(model, [optimizer], range(parts))
    return folder


def assert_same_run(ours: Path, expected: Path) -> None:
    """Every column of every table; training is in float64, columns are float32."""
    left, right = dynoscope.open_run(ours), dynoscope.open_run(expected)
    assert left.problems == right.problems
    for key in ("model", "layers", "normalization", "optimizer"):
        assert left.manifest[key] == right.manifest[key]
    for name in TABLES:
        a, b = getattr(left, name)(), getattr(right, name)()
        assert len(b) > 0 or name == "histograms"
        assert_same_table(a.drop(columns="wall_time", errors="ignore"), b)


def assert_same_table(ours: pd.DataFrame, expected: pd.DataFrame) -> None:
    # rows of several optimizers lie as they come to be written
    keys = [key for key in ("step", "layer", "group", "quantity") if key in ours]
    ours, expected = (frame.sort_values(keys) for frame in (ours, expected))
    for column in ours:
        left, right = ours[column], expected[column]
        if left.dtype.kind == "f":
            # A weight that is cut turns by what its parts' turns differ in: 1e-8 of
            # the update, which is a hundredth of the weight at most.
            np.testing.assert_allclose(left, right, 1e-5, 1e-10, err_msg=str(column))
        else:
            assert all(map(np.array_equal, left, right)), column


@KINDS
@pytest.mark.parametrize("setup", ["fsdp", "tensor parallel"])
def test_two_processes_measure_as_one(
    two: Found, setup: str, kind: str, tmp_path: Path
) -> None:
    expected = single(tmp_path / "run", kind, SETUPS[setup].parts, **OPTIONS[kind])
    assert_same_run(two.folder / f"{setup} {kind}", expected)


@pytest.mark.slow
def test_four_processes_measure_as_one(tmp_path: Path) -> None:
    four = found_by(4, tmp_path)
    assert all(four.all_say("as_single").values())
    for setup in ("hsdp", "tensor parallel twice", "fsdp + tensor parallel"):
        parts = SETUPS[setup].parts
        for kind in OPTIMIZERS:
            name = f"{setup} {kind}"
            expected = single(tmp_path / f"{name} 1", kind, parts, **OPTIONS[kind])
            assert_same_run(tmp_path / name, expected)


def test_training_is_bit_identical(two: Found) -> None:
    same = two.all_say("as_single")
    assert len(same) == 2 * len(OPTIMIZERS)
    assert all(same.values())


def test_two_collectives_where_measured_none_elsewhere(two: Found) -> None:
    assert two.all_say("collectives") == [2, 0] * (STEPS // 2)


def test_processes_keep_to_one_budget(two: Found) -> None:
    counts = two.all_say("paced")
    assert counts[:FIRST] == [2] * FIRST
    assert set(counts[FIRST:]) == {0, 2}
    measured = dynoscope.open_run(two.folder / "paced").groups()["step"]
    assert measured.tolist() == [step for step, n in enumerate(counts) if n]


class TestReplicas:
    def test_first_process_writes_what_a_single_one_would(
        self, two: Found, tmp_path: Path
    ) -> None:
        expected = single(tmp_path / "run", "adamw", 2)
        assert_same_run(two.folder / "ddp 0", expected)
        run = dynoscope.open_run(two.folder / "ddp 0")
        assert run.scalars("loss")["value"].tolist() == [2, 3]

    def test_others_write_nothing(self, two: Found) -> None:
        assert not (two.folder / "ddp 1").exists()
        assert [said["replicas"]["writes"] for said in two.said] == [True, False]
        names = [*dict(Net().named_parameters()), "*"]
        for said in two.said:
            assert said["replicas"]["step"] == STEPS
            assert said["replicas"]["layers"] == names

    def test_nothing_is_exchanged(self, two: Found) -> None:
        assert [said["replicas"]["collectives"] for said in two.said] == [[0, 0]] * 2

    def test_sharded_state(self, two: Found, tmp_path: Path) -> None:
        """ZeroRedundancyOptimizer: weights are whole, momenta elsewhere."""
        expected = dynoscope.open_run(single(tmp_path / "run", "adamw", 2))
        run = dynoscope.open_run(two.folder / "zero")
        columns = ["angular_update", "update_norm", "grad_l2", "pred_weight_norm"]
        assert_same_table(run.layers(columns), expected.layers(columns))
        assert run.layers()["momentum_norm"].isna().all()
        assert "a part of the state" in run.manifest["optimizer"]["unread"]

    def test_processes_that_train_by_themselves(self, two: Found) -> None:
        for rank in range(2):
            assert dynoscope.open_run(two.folder / f"own {rank}").last_step == 0


class TestShards:
    def test_several_optimizers(self, two: Found, tmp_path: Path) -> None:
        """The open round is given up: the others may have left already."""
        model = Net()
        params = list(model.parameters())
        pair = [OPTIMIZERS["adamw"](params[:3]), OPTIMIZERS["sgdm"](params[3:])]
        with dynoscope.watch(model, pair, run=tmp_path / "run", strict=True):
            train(model, pair, range(2))
        assert_same_run(two.folder / "rounds", tmp_path / "run")
        progress = dynoscope.open_run(two.folder / "rounds").manifest["progress"]
        assert (progress["measured"], progress["skipped"]) == (STEPS, 1)
        assert two.all_say("two_optimizers") == STEPS + 1

    def test_resumed_on_all(self, two: Found) -> None:
        assert two.all_say("resumed") == [2, 4, 5]
        run = dynoscope.open_run(two.folder / "resumed")
        assert run.layers()["step"].unique().tolist() == [0, 1, 2, 3, 4]
        assert [branch.last_step for branch in run.branches] == [3]
        assert two.all_say("resumed_replicas") == [0, 3]

    def test_watched_after_a_forward_pass(self, two: Found) -> None:
        run = dynoscope.open_run(two.folder / "validated")
        assert run.layer_names == list(dict(Net().named_parameters()))

    @pytest.mark.parametrize(
        ("case", "said"),
        [
            ("again", "RunExistsError.* holds a run already"),
            ("apart", "UnwatchableError: process 1 would watch .* in another way"),
            ("one", "UnwatchableError: process 1 would watch other layers"),
            ("unfound", "UnwatchableError: include='no such layer'"),
            ("gradient", "MeasurementError: .* sharded"),
            ("invariance", "MeasurementError: .* sharded"),
            ("channels", "MeasurementError: .* sharded"),
            ("constraint", "MeasurementError: .* sharded"),
        ],
    )
    def test_all_raise_the_same(self, two: Found, case: str, said: str) -> None:
        for found in two.said:
            assert re.search(said, found["refusals"][case])

    def test_a_group_of_others(self, two: Found) -> None:
        first, second = (said["refusals"]["group"] for said in two.said)
        assert "is on process 1 as well, which is not in process_group" in first
        assert "this process is not in process_group" in second

    def test_nothing_is_written_where_processes_disagree(self, two: Found) -> None:
        for name in ("apart", "one", "unfound"):
            assert not (two.folder / name).exists()

    def test_sharded_after_it_was_watched(self, two: Found) -> None:
        (problem,) = dynoscope.open_run(two.folder / "late").problems
        assert "call fully_shard or parallelize_module first" in problem

    @pytest.mark.parametrize("where", [0, 1])
    @pytest.mark.parametrize("at", BROKEN)
    def test_an_error_of_ours_on_one(self, two: Found, at: str, where: int) -> None:
        assert two.all_say("errors_of_ours")[f"{at} {where}"]
        run = dynoscope.open_run(two.folder / f"broken {at} {where}")
        assert run.status == "finished"
        assert run.layers()["step"].unique().tolist() == [0, 1]
        (problem,) = run.problems
        if where == 0:
            assert f"injected into {BROKEN[at][1]}" in problem
        else:
            assert "measuring failed on process 1" in problem
            assert run.manifest["progress"]["lost"] == STEPS - 2


@pytest.mark.parametrize("deal", ["ddp", "fsdp"])
def test_survivors_of_a_kill_say_what_torch_says(deal: str, tmp_path: Path) -> None:
    codes = exit_codes(functools.partial(killed, deal), 2, tmp_path, seconds=150)
    assert codes == [1, -signal.SIGKILL]
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "failed"
    assert "gloo" in str(run.exception)
    assert run.layers()["step"].unique().tolist() == [0, 1]
