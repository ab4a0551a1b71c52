from pathlib import Path

import pytest

from tests.diff.runs import adamw, lion, record


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def a(folder: Path) -> Path:
    return record(folder / "adamw", adamw, 30, config={"batch": 16, "tag": {"x": 1}})


@pytest.fixture(scope="session")
def b(folder: Path) -> Path:
    return record(folder / "lion", lion, 24, config={"batch": 16, "tag": {"x": 2}})


@pytest.fixture(scope="session")
def sparse(folder: Path) -> Path:
    """Every third step, 40 of them."""
    return record(folder / "sparse", lion, 40, every=3)
