"""The same checks on several processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from tests.conformance.ranks import DEALT, check_all
from tests.hooks.test_sharded import assert_same_run, single
from tests.spawning import spawn

Found: TypeAlias = Callable[[int], Path]

SETUPS = pytest.mark.parametrize(
    "setup",
    [
        pytest.param(name, marks=[pytest.mark.slow] if dealt.world > 2 else [])
        for name, dealt in DEALT.items()
    ],
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Folder of what so many processes found; they are started once."""
    folders: dict[int, Path] = {}

    def of(world: int) -> Path:
        if world not in folders:
            folders[world] = tmp_path_factory.mktemp(f"world-{world}-")
            spawn(check_all, world, folders[world])
        return folders[world]

    return of


def assert_fine(check: str, setup: str, found: Found) -> None:
    world = DEALT[setup].world
    folder = found(world)
    for rank in range(world):
        said: dict[Any, str] = torch.load(folder / f"{rank}.pt")
        assert said[setup, check] == ""


@SETUPS
def test_bit_identical(setup: str, found: Found) -> None:
    assert_fine("bit_identical", setup, found)


@SETUPS
def test_right_numbers(setup: str, found: Found, tmp_path: Path) -> None:
    dealt = DEALT[setup]
    run = found(dealt.world) / f"{setup} bit_identical"
    assert_same_run(run, single(tmp_path / "run", "adamw", dealt.parts))


@SETUPS
def test_nothing_is_left(setup: str, found: Found) -> None:
    assert_fine("nothing_is_left", setup, found)


@SETUPS
def test_copies(setup: str, found: Found) -> None:
    assert_fine("copies", setup, found)


@SETUPS
def test_again(setup: str, found: Found) -> None:
    assert_fine("again", setup, found)


@SETUPS
def test_exceptions_pass(setup: str, found: Found) -> None:
    assert_fine("exceptions_pass", setup, found)
