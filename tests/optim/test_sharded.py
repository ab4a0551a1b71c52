"""Every optimizer on DTensors, in processes of their own, against a single process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import spawning
from tests.optim.layers import PATHS
from tests.optim.ranks import (
    EXTREMES,
    HYPER,
    MAKERS,
    SETUPS,
    STEPS,
    Model,
    Outcome,
    hand_cases,
    run,
    step_by_hand,
    train,
)

EACH = pytest.mark.parametrize("name", MAKERS)


def spawn(world: int, folder: Path) -> list[dict[str, Any]]:
    """What every process of a group finds."""
    spawning.spawn(run, world, folder)
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(world)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return spawn(2, tmp_path_factory.mktemp("two"))


def single(name: str, parts: int, foreach: bool | None = None) -> Outcome:
    model = Model()
    optimizer = MAKERS[name](model.parameters(), foreach=foreach, **HYPER)
    return train(optimizer, model, range(parts), range(STEPS))


def assert_same(ours: list[Tensor], expected: list[Tensor]) -> None:
    for left, right in zip(ours, expected, strict=True):
        # a unit in the last place of bfloat16
        tolerance = 2**-7 if right.dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(left, right, rtol=tolerance, atol=1e-6)


def expected_collectives(name: str, setup: str, cutting: int) -> int:
    """Of a step, where so many mesh dimensions cut."""
    if name.startswith("Rotational") and name != "Rotational-tensor":
        # fully_shard deals out whole rows
        return 2 * ("tensor parallel" in setup)
    if name.startswith(("OrtSepNorm", "Rotational")):
        return 2 * cutting
    return cutting if name.startswith(("NormGD", "SepNorm")) else 0


@EACH
class TestTwoProcesses:
    @PATHS
    @pytest.mark.parametrize("setup", ["fsdp", "tensor parallel"])
    def test_steps_are_those_of_a_single_process(
        self, two: list[dict[str, Any]], setup: str, name: str, foreach: bool | None
    ) -> None:
        expected = single(name, SETUPS[setup].parts, foreach)
        for found in two:
            ours: Outcome = found[f"{setup} {name} {foreach}"]
            assert_same(ours.weights, expected.weights)
            assert_same(ours.momenta, expected.momenta)
            assert ours.momenta_lie_as_weights

    @PATHS
    @pytest.mark.parametrize("setup", ["fsdp", "tensor parallel"])
    def test_number_of_collectives(
        self, two: list[dict[str, Any]], setup: str, name: str, foreach: bool | None
    ) -> None:
        # a gather for each tensor that is cut where K is not separable
        gathers = 7 if "lp" in name or "topk" in name else 0
        expected = gathers + expected_collectives(name, setup, cutting=1)
        for found in two:
            ours: Outcome = found[f"{setup} {name} {foreach}"]
            assert ours.collectives == expected

    def test_whole_rows_need_no_collective(
        self, two: list[dict[str, Any]], name: str
    ) -> None:
        for dim in (0, 1):
            collectives = two[0][f"matrices {name} {dim}"][1]
            if name.endswith("-row"):
                assert (collectives == 0) == (dim == 0)

    def test_momentum_is_saved_and_resumed(
        self, two: list[dict[str, Any]], name: str
    ) -> None:
        expected = single(name, SETUPS["fsdp"].parts)
        for found in two:
            assert_same(found[f"resume {name}"].weights, expected.weights)

    @pytest.mark.parametrize("dim", [0, 1])
    @pytest.mark.parametrize("sort", ["matrices", "mixed dtypes", "complex"])
    def test_one_step(
        self, two: list[dict[str, Any]], name: str, sort: str, dim: int
    ) -> None:
        expected, _ = step_by_hand(*hand_cases()[f"{sort} {name}"], None)
        for found in two:
            assert_same(found[f"{sort} {name} {dim}"][0], expected)

    def test_finite_input_never_gives_nan(
        self, two: list[dict[str, Any]], name: str
    ) -> None:
        for found in two:
            for size, weight_size in EXTREMES:
                moved, _ = found[f"extreme {name} {size} {weight_size} 1"]
                assert all(weight.isfinite().all() for weight in moved)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("per", ["group", "row", "tensor"])
def test_an_update_along_the_weight_is_none(
    two: list[dict[str, Any]], per: str, dim: int
) -> None:
    _, pairs = hand_cases()[f"along OrtSepNorm-{per}"]
    for found in two:
        moved, _ = found[f"along OrtSepNorm-{per} {dim}"]
        assert_same(moved, [0.95 * weight for weight, _ in pairs])


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize(("name", "collectives"), [("SepNorm", 1), ("OrtSepNorm", 2)])
def test_groups_share_their_collectives(
    two: list[dict[str, Any]], name: str, collectives: int, dim: int
) -> None:
    expected, _ = step_by_hand(*hand_cases()[f"groups {name}"], None)
    for found in two:
        moved, counted = found[f"groups {name} {dim}"]
        assert_same(moved, expected)
        assert counted == collectives


def test_a_k_of_ones_own_is_given_whole_tensors(two: list[dict[str, Any]]) -> None:
    numel = sum(weight.numel() for weight in Model().weights)
    for found in two:
        assert found["Halved"][1] == numel
        assert found["Halved"][0].collectives == 7


def test_a_separable_k_of_ones_own_is_given_shards(two: list[dict[str, Any]]) -> None:
    numel = sum(weight.numel() for weight in Model().weights)
    # both hold the number ()
    assert sum(found["SeparableHalved"][1] for found in two) == numel + 1
    for found in two:
        assert found["SeparableHalved"][0].collectives == 0
        assert_same(found["SeparableHalved"][0].weights, found["Halved"][0].weights)


def test_gradient_that_is_yet_to_be_summed(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert_same(*found["partial_gradient"])


def test_momentum_that_was_loaded_whole(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert "shape (2, 2) is sharded" in found["plain_momentum"]
        assert "set_optimizer_state_dict" in found["plain_momentum"]


def test_row_means(two: list[dict[str, Any]]) -> None:
    expected = [torch.tensor([[2.0], [7.0], [12.0]]), torch.tensor([[3.0]])] * 2
    for found in two:
        assert_same(found["row_means"], expected)


@pytest.mark.slow
def test_four_processes_in_two_dimensions(tmp_path: Path) -> None:
    for found in spawn(4, tmp_path):
        for setup, cutting in (("hsdp", 1), ("fsdp + tensor parallel", 2)):
            for name in MAKERS:
                ours: Outcome = found[f"{setup} {name} None"]
                expected = single(name, SETUPS[setup].parts)
                assert_same(ours.weights, expected.weights)
                assert_same(ours.momenta, expected.momenta)
                if "lp" not in name and "topk" not in name:
                    collectives = expected_collectives(name, setup, cutting)
                    assert ours.collectives == collectives
