import statistics

import pytest

from examples.optimizers import OPTIMIZERS, accuracy

SEEDS = range(3)


@pytest.fixture(scope="module")
def adamw() -> float:
    name = next(name for name in OPTIMIZERS if name.startswith("AdamW"))
    return statistics.mean(accuracy(OPTIMIZERS[name], seed) for seed in SEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_as_well_as_adamw(name: str, adamw: float) -> None:
    reached = statistics.mean(accuracy(OPTIMIZERS[name], seed) for seed in SEEDS)
    assert reached > adamw - 0.01
