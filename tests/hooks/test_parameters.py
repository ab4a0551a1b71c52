"""Names of parameters, whatever the model is wrapped in."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,
)

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.parameters import model_of, name_of, parameters_in, reshard


class Block(nn.Module):
    """Has a module called `module`, as people do."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.bare = nn.Parameter(torch.zeros(2))


def names(model: nn.Module) -> list[str]:
    return [name for found in parameters_in(model_of(model)) for name in found.names]


PLAIN = ["0.bare", "0.module.weight", "0.module.bias", "1.weight", "1.bias"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own imports
def test_no_wrapper_shows_in_a_name() -> None:
    def plain() -> nn.Sequential:
        return nn.Sequential(Block(), nn.Linear(2, 2))

    block, linear = Block(), nn.Linear(2, 2)
    block.add_module("module", checkpoint_wrapper(block.module))
    compiled: Any = torch.compile(linear)
    models = [
        plain(),
        nn.Sequential(checkpoint_wrapper(Block()), linear),
        nn.Sequential(nn.DataParallel(checkpoint_wrapper(block)), compiled),
        checkpoint_wrapper(nn.DataParallel(plain())),
    ]
    for model in models:
        assert names(model) == PLAIN
        assert name_of(model_of(model)) == "Sequential"


class FullyShardedDataParallel(nn.Module):
    """Known by its name; torch's own cannot be made without an accelerator."""


def test_flat_pieces_are_refused() -> None:
    with pytest.raises(UnwatchableError, match=r"use .*fully_shard$"):
        reshard(nn.Sequential(FullyShardedDataParallel()))
