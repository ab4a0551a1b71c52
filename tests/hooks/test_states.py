"""States are those of now, however the optimizer has come to others."""

import copy
import operator
from collections.abc import Callable

import pytest
import torch

from dynoscope.hooks.recognition import adapter_for
from dynoscope.hooks.states import States


def refill(optimizer: torch.optim.Optimizer) -> None:
    """As `load_state_dict` of a checkpoint does it."""
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def replace_one(optimizer: torch.optim.Optimizer) -> None:
    """A dictionary of its own for a parameter, as some optimizers make it."""
    parameter = next(iter(optimizer.state))
    optimizer.state[parameter] = {"exp_avg": torch.zeros_like(parameter)}


def forget_one(optimizer: torch.optim.Optimizer) -> None:
    """A parameter starts anew."""
    del optimizer.state[next(iter(optimizer.state))]


def swap(optimizer: torch.optim.Optimizer) -> None:
    """As many entries as before, of other parameters."""
    (first, a), (second, b) = list(optimizer.state.items())[:2]
    optimizer.state[first], optimizer.state[second] = b, a


@pytest.mark.parametrize("change", [refill, replace_one, forget_one, swap])
def test_states_of_now(change: Callable[[torch.optim.Optimizer], None]) -> None:
    parameters = [torch.nn.Parameter(torch.ones(n)) for n in (2, 3, 4)]
    optimizer = torch.optim.AdamW(parameters)
    states = States(optimizer, adapter_for(optimizer), parameters)
    assert [*states.now()] == [{}, {}, {}]
    assert not optimizer.state, "nothing is made by looking"
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for _ in range(2):  # the second time, as it was seen
        found = states.now()
        its = [optimizer.state[parameter] for parameter in parameters]
        assert len(found) == len(its)
        assert all(map(operator.is_, found, its))
    change(optimizer)
    for now, parameter in zip(states.now(), parameters, strict=True):
        assert now is optimizer.state.get(parameter) or now == {}


def test_a_state_that_is_filled_later_is_seen() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], momentum=0.9)
    optimizer.state[parameter] = {}
    states = States(optimizer, adapter_for(optimizer), [parameter])
    assert [*states.now()] == [{}]
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(states.now()[0]["momentum_buffer"], parameter.grad)


@pytest.mark.parametrize("change", [refill, replace_one, forget_one, swap])
@pytest.mark.parametrize(
    "kind", [None, torch.float32, torch.float64, torch.int64, torch.bfloat16]
)
def test_counts_of_now(
    kind: torch.dtype | None, change: Callable[[torch.optim.Optimizer], None]
) -> None:
    parameters = [torch.nn.Parameter(torch.ones(n)) for n in (2, 3, 4)]
    optimizer = torch.optim.AdamW(parameters, foreach=False)
    states = States(optimizer, adapter_for(optimizer), parameters)
    assert [*states.counts()] == [None, None, None]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    parameters[1].grad = None  # its count stays behind

    def here() -> list[int | None]:
        found = [optimizer.state.get(p, {}).get("step") for p in parameters]
        return [None if count is None else int(count) for count in found]

    for state in optimizer.state.values():
        count = int(state["step"])
        state["step"] = count if kind is None else torch.tensor(count, dtype=kind)
    assert [*states.counts()] == here() == [1, 1, 1]
    for taken in (2, 3):  # in the tensors' own memory
        for parameter in (parameters[0], parameters[2]):
            optimizer.state[parameter]["step"] += 1
        assert [*states.counts()] == here() == [taken, 1, taken]
    change(optimizer)
    assert [*states.counts()] == here()


def test_counts_that_cannot_be_read_at_once_are_left_as_they_are() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    count = torch.ones((), device="meta")
    optimizer.state[parameter] = {"step": count}
    states = States(optimizer, adapter_for(optimizer), [parameter])
    assert states.counts()[0] is count
