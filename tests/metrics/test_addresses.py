"""Addresses are those of now, and of memory that a kernel can read."""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dynoscope.metrics.sums.addresses import Addresses

CODES = {torch.float32: 0, torch.float64: 2}

LIKE = [torch.arange(6.0).reshape(2, 3), torch.arange(4.0), torch.arange(1.0)]

KINDS = st.sampled_from(["none", "plain", "double", "half", "transposed"])


def made(kind: str, like: Tensor, k: int) -> Tensor | None:
    """A tensor of the like's shape, and numbers of its own."""
    x = like + 10 * k
    match kind:
        case "none":
            return None
        case "double":
            return x.double()
        case "half":  # which the kernel cannot read
            return x.half()
        case "transposed":  # in another order
            return x.t().contiguous().t()
    return x


def numbers(row: Sequence[int], like: Tensor) -> list[float]:
    """What lies at an address."""
    kind = {0: ctypes.c_float, 2: ctypes.c_double}[row[1]]
    return list((kind * like.numel()).from_address(row[0]))


@given(
    st.lists(st.tuples(KINDS, KINDS, KINDS), min_size=1, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_there_lie_the_numbers_of_each_tensor(
    steps: list[tuple[str, str, str]], lets_go: list[bool]
) -> None:
    addresses = Addresses(LIKE, CODES)
    for k, (kinds, goes) in enumerate(zip(steps, lets_go, strict=False)):
        tensors = [made(kind, x, k) for kind, x in zip(kinds, LIKE, strict=True)]
        for _ in range(2):  # the second time, they are known
            table = addresses.point_to(tensors)
            for x, like, row in zip(tensors, LIKE, table.tolist(), strict=True):
                if x is None:
                    assert row[0] == 0
                else:
                    assert numbers(row, like) == x.flatten().tolist()
        if goes:
            addresses.let_go()


def test_data_that_move_are_followed() -> None:
    x = LIKE[0].clone()
    addresses = Addresses(LIKE[:1], CODES)
    assert addresses.point_to([x])[0, 0] == x.data_ptr()
    x.data = LIKE[0] + 1
    assert addresses.point_to([x])[0, 0] == x.data_ptr()


def test_no_tensor_is_kept_alive() -> None:
    addresses = Addresses(LIKE, CODES)
    addresses.point_to(LIKE)
    addresses.let_go()
    assert np.array_equal(addresses.point_to([None] * 3)[:, 0], [0, 0, 0])
