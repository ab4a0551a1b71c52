"""The count of steps that optimizers keep, where they keep one."""

import pytest
import torch

from dynoscope.hooks import steps_taken
from tests.networks import OPTIMIZERS, MixedNet, train


@pytest.mark.parametrize(
    ("name", "counted"), [("adamw", 3), ("adam_l2", 3), ("sgdm", None), ("lion", None)]
)
def test_steps_are_counted_by_those_that_do(name: str, counted: int | None) -> None:
    model = MixedNet()
    optimizer = OPTIMIZERS[name](model)
    assert steps_taken([optimizer]) == 0
    train(model, optimizer, 3)
    assert steps_taken([optimizer]) == counted


def test_the_largest_count_is_that_of_all() -> None:
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    first, second = torch.optim.AdamW(weights[:2]), torch.optim.AdamW(weights[2:])
    for step in range(4):
        for at, weight in enumerate(weights):
            weight.grad = torch.ones(2) if at == 0 or step == 0 else None
        first.step()
    assert steps_taken([second, first]) == 4


def test_a_count_in_the_group_is_one_too() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = torch.optim.SGD([weight], momentum=0.9)
    optimizer.step()
    optimizer.param_groups[0]["step"] = 12
    assert steps_taken([optimizer]) == 12
