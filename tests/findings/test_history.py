"""Bucket means and totals, against the rows themselves."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynoscope.findings.history import BUCKETS, FEWEST, ChannelTotals, History
from dynoscope.reader import Block

LAYERS = 3


def rows_of(steps: np.ndarray, columns: list[str], seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (len(steps), LAYERS)
    block = {name: random.lognormal(size=shape) for name in columns}
    block["nonfinite"] = np.zeros(shape)
    return {"step": steps, **block}


def pieces(block: Block, cuts: list[int]) -> Iterator[Block]:
    edges = sorted({0, len(block["step"]), *(c % len(block["step"]) for c in cuts)})
    for start, stop in itertools.pairwise(edges):
        yield {name: column[start:stop] for name, column in block.items()}


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 1500),
    every=st.integers(1, 7),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_buckets_are_means_of_their_rows(
    count: int, every: int, cuts: list[int]
) -> None:
    history = History(LAYERS)
    steps = 5 + every * np.arange(count)
    block = rows_of(steps, history.columns, count)
    for piece in pieces(block, cuts):
        history.add(piece)
    counts = history.counts
    assert counts.sum() == history.measured == count
    assert len(counts) <= BUCKETS
    assert len(counts) >= min(count, BUCKETS // 2)
    assert len(set(counts[:-1].tolist())) <= 1
    at = np.cumsum([0, *counts[:-1]])
    np.testing.assert_array_equal(history.starts, steps[at])
    assert history.spans.sum() == steps[-1] + 1 - steps[0]
    for name in ("weight_norm", "lr"):
        wanted = [block[name][a : a + n].mean(axis=0) for a, n in zip(at, counts)]  # noqa: B905
        np.testing.assert_allclose(history.means(name), wanted, rtol=1e-5)


def test_what_is_not_a_number_is_left_out() -> None:
    history = History(LAYERS)
    block = rows_of(np.arange(600), history.columns, 0)
    block["grad_l2"][:, 1] = np.nan
    block["grad_l2"][1::2, 2] = np.nan
    history.add(block)
    means = history.means("grad_l2")
    assert np.isnan(means[:, 1]).all()
    counts = history.counts
    assert counts[0] == 4  # 600 rows in at most 256 buckets
    np.testing.assert_allclose(
        means[0, 2], np.nanmean(block["grad_l2"][: counts[0], 2]), rtol=1e-5
    )


def test_nonfinite_is_exact_however_long_the_run() -> None:
    history = History(LAYERS)
    for start in range(0, 3000, 100):
        block = rows_of(np.arange(start, start + 100), history.columns, start)
        block["nonfinite"][:, 1] = start >= 1700
        block["nonfinite"][37:, 2] = start >= 200
        history.add(block)
    assert history.first_nonfinite.tolist() == [-1, 1700, 237]
    assert history.last_step == 2999


def test_memory_is_bounded_for_many_layers() -> None:
    history = History(20_000)
    columns = len(history.columns)
    assert history._means.nbytes <= FEWEST * columns * 20_000 * 4


def test_channel_totals_count_from_batch_to_batch() -> None:
    random = np.random.default_rng(0)
    shape = (90, 2)
    block = {
        "step": np.arange(10, 100),
        "dead": random.integers(0, 4, shape).astype(float),
        "ghost": random.integers(0, 3, shape).astype(float),
        "revived": random.integers(0, 2, shape).astype(float),
    }
    block["ghost"][:20] = 0
    block["ghost"][20] = 1, 0
    totals = ChannelTotals(["a", "b"], [8, 16])
    for piece in pieces(block, [1, 15, 60]):
        totals.add(piece)
    np.testing.assert_allclose(
        totals.ghost_share, block["ghost"].sum(axis=0) / (90 * np.array([8, 16]))
    )
    assert totals.revived.tolist() == block["revived"].sum(axis=0).tolist()
    assert totals.dead.tolist() == block["dead"][-1].tolist()
    assert totals.first_ghost[0] == 30
    assert totals.first_ghost[1] == 10 + block["ghost"][:, 1].nonzero()[0][0]
    with pytest.raises(KeyError):
        totals.add({"step": np.arange(3)})
