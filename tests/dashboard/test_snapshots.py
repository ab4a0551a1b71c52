import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.dashboard.snapshots import MOST, Snapshots
from dynoscope.metrics.histograms import BINS, trimmed
from dynoscope.schema.arrow import arrow_schema


def counts_at(step: int, layer: int) -> np.ndarray:
    counts = np.zeros(BINS, np.int64)
    counts[BINS // 2 + layer - 5 : BINS // 2 + layer] = step + 1
    return counts


def rows(steps: list[int]) -> pa.Table:
    cells = [
        (step, f"{layer}", quantity, *trimmed(sign * counts_at(step, layer)))
        for step in steps
        for layer in (0, 3)
        for quantity, sign in (("weight", 1), ("gradient", 2))
    ]
    schema = arrow_schema("histograms")
    columns = zip(*cells, strict=True)
    arrays = [
        pa.array([list(c) if isinstance(c, np.ndarray) else c for c in column], f.type)
        for column, f in zip(columns, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, MOST))
def test_keeps_evenly_spaced_steps_and_the_newest(
    helpings: list[int], count: int
) -> None:
    snapshots, seen = Snapshots(), 0
    for helping in helpings:
        snapshots.add(rows(list(range(seen, seen + helping))))
        seen += helping
    # The least power of two at which all but the newest are few enough.
    stride = 1
    while len(range(0, seen - 1, stride)) > MOST:
        stride *= 2
    assert snapshots.stride == stride
    expected = sorted({*range(0, seen, stride), seen - 1})
    kept = snapshots.spread(10**6)
    assert kept == expected
    assert len(snapshots) == len(kept) <= MOST + 1
    assert snapshots.last == seen - 1
    few = snapshots.spread(count)
    assert few[-1] == seen - 1
    assert len(few) == min(count, len(kept))
    assert set(few) <= set(kept)


def test_counts_add_up_over_layers() -> None:
    snapshots = Snapshots()
    snapshots.add(rows([4, 9]))
    both = counts_at(9, 0) + counts_at(9, 3)
    np.testing.assert_array_equal(snapshots.counts(9, ["0", "3"], "weight"), both)
    np.testing.assert_array_equal(snapshots.counts(9, ["0", "3"], "gradient"), 2 * both)
    np.testing.assert_array_equal(snapshots.counts(4, ["3"], "weight"), counts_at(4, 3))
    assert not snapshots.counts(4, ["absent"], "weight").any()


def test_nothing_before_the_first() -> None:
    snapshots = Snapshots()
    assert not snapshots
    assert snapshots.last is None
    assert snapshots.spread(4) == []
