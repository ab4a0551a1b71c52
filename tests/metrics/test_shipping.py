"""Steps that are unpacked together are what each of them is by itself."""

import numpy as np
import pytest

from dynoscope.measurement import CHANNEL_QUANTITIES, UNIT_SUMS, Host, Sum
from dynoscope.metrics.packing import Columns, Packing
from dynoscope.metrics.shipping import Shipped, stacked, unpack

STEPS = 5

ORDERS = {
    "in the layers' order": [Columns(0, 2, rows=3), Columns(1, 1, channels=4)],
    "in another": [Columns(1, 2, 3, 2), Columns(0, 1, 2, 4)],
}


def shipped(columns: list[Columns], dtype: str = "float64") -> list[Shipped]:
    packing, random = Packing([columns]), np.random.default_rng(0)
    flats = random.uniform(0.1, 1.0, (STEPS, packing.size(0))).astype(dtype)
    return [Shipped(packing, [lambda flat=flat: flat]) for flat in flats]  # type: ignore[misc]


def assert_same(found: Host, wanted: list[Host]) -> None:
    for name in ("sums", "rows", "channels"):
        values = np.stack([getattr(host, name) for host in wanted])
        np.testing.assert_array_equal(getattr(found, name), values)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ORDERS)
def test_together_or_one_by_one(order: str, dtype: str) -> None:
    alone = [step() for step in shipped(ORDERS[order], dtype)]
    together = shipped(ORDERS[order], dtype)
    unpack(together)
    assert_same(stacked(together), alone)
    assert_same(stacked(together[1:4]), alone[1:4])
    assert_same(stacked(together[::2]), alone[::2])
    assert_same(stacked([together[3], lambda: alone[0]]), [alone[3], alone[0]])
    assert_same(stacked(together[4:] + together[:2]), [alone[4], *alone[:2]])


def test_what_was_unpacked_together_is_not_copied() -> None:
    steps = shipped(ORDERS["in another"])
    unpack(steps)
    assert np.shares_memory(stacked(steps[1:]).rows, steps[2]().rows)
    assert not np.shares_memory(stacked(steps[::2]).rows, steps[2]().rows)


@pytest.mark.parametrize("order", ORDERS)
def test_layers_rows_and_channels_are_in_the_layers_order(order: str) -> None:
    columns = ORDERS[order]
    packing = Packing([columns])
    rows = [c.layer for c in columns for _ in range(c.rows)]
    channels = [c.layer for c in columns for _ in range(c.channels)]
    parts = [
        np.ones((len(Sum), sum(c.pieces for c in columns))),
        np.tile(np.array(rows, float), (len(UNIT_SUMS), 1)),
        np.tile(np.array(channels, float), (len(CHANNEL_QUANTITIES), 1)),
    ]
    flat = np.concatenate([part.ravel() for part in parts])
    host = Shipped(packing, [lambda: flat])()
    np.testing.assert_array_equal(host.rows, np.sort(parts[1], axis=1))
    np.testing.assert_array_equal(host.channels, np.sort(parts[2], axis=1))
