"""Layers that take turns: what is read of modules, and what runs are compared by."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dynoscope
from dynoscope.diff import diff
from dynoscope.reader import Run
from dynoscope.reader.turns import as_of_last_turns, reach_of, turns_of

STEPS, TURNS = 13, 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same training, measured whole, in turns, and once more in turns."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, turns in (("plain", 1), ("turned", TURNS), ("again", TURNS)):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(6, 7), nn.LayerNorm(7), nn.Sequential(nn.Linear(7, 5, bias=False))
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
        with dynoscope.watch(
            model, optimizer, run=folder / name, every=1, turns=turns, quiet=True
        ):
            for _ in range(STEPS):
                model(torch.randn(8, 6)).square().sum().backward()
                optimizer.step()
        found[name] = dynoscope.open_run(folder / name)
    return found


@given(
    turns=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    order=st.lists(st.integers(0, 3), max_size=20),
)
def test_each_layer_counts_as_of_its_last_turn(
    turns: list[int], order: list[int]
) -> None:
    labels = np.array(turns)
    is_there = np.array([labels == turn for turn in order]).reshape(-1, len(turns))
    numbers = np.arange(is_there.size, dtype=float).reshape(is_there.shape)
    column = np.where(is_there, numbers, np.nan)
    found = as_of_last_turns(labels, {"nonfinite": column, "other": -column})
    np.testing.assert_array_equal(found["other"], -found["nonfinite"])
    wanted = np.full(column.shape, np.nan)
    reach = 2 * len(set(turns)) if len(set(turns)) > 1 else 1
    assert reach_of(labels) == (reach if reach > 1 else 0)
    for row, turn in enumerate(order):
        recent = range(max(row - reach + 1, 0), row + 1)
        last = {order[at]: at for at in recent}
        if turn in turns and set(turns) <= set(last):
            wanted[row] = [column[last[t], k] for k, t in enumerate(turns)]
    np.testing.assert_array_equal(found["nonfinite"], wanted)


def test_a_module_is_made_of_last_turns(runs: dict[str, Run]) -> None:
    run, plain = runs["turned"], runs["plain"]
    whole = run.layers(["weight_norm", "update_norm", "numel"], "*")
    steps = list(range(TURNS - 1, STEPS))
    assert whole["step"].tolist() == steps
    assert (whole["numel"] == sum(la["numel"] for la in run.manifest["layers"])).all()
    rows = plain.layers(["weight_norm", "update_norm"]).set_index(["step", "layer"])
    turn_of = dict(
        zip(run.layer_names, turns_of(run.manifest, run.layer_names), strict=True)
    )
    assert set(turn_of.values()) == set(range(TURNS))
    for metric in ("weight_norm", "update_norm"):
        wanted = [
            np.sqrt(
                sum(
                    rows.loc[(step - (step - turn) % TURNS, name), metric] ** 2
                    for name, turn in turn_of.items()
                )
            )
            for step in steps
        ]
        np.testing.assert_allclose(whole[metric], wanted, rtol=1e-6)
        found = run.series(metric, "*")
        assert found.step.tolist() == steps
        np.testing.assert_allclose(found.value, wanted, rtol=1e-6)


def test_a_module_that_is_of_one_turn_has_rows_as_its_layers(
    runs: dict[str, Run],
) -> None:
    found, plain = (
        runs[name].layers("angular_update", "2.*").set_index("step")
        for name in ("turned", "plain")
    )
    (turn,) = turns_of(runs["turned"].manifest, ["2.0.weight"])
    assert found.index.tolist() == list(range(turn, STEPS, TURNS))
    assert found["angular_update"].equals(plain.loc[found.index, "angular_update"])


def test_the_summary_is_of_all_layers(runs: dict[str, Run]) -> None:
    run = runs["turned"]
    angles = run.layers("angular_update", "*")["angular_update"].to_numpy()
    summary = run.summary()
    assert summary.angular_update == pytest.approx(angles.mean())
    assert summary.angular_update_last == pytest.approx(angles[-1])


def test_the_overview_shows_all_layers(runs: dict[str, Run]) -> None:
    overview = runs["turned"].overview("weight_norm", points=3)
    assert np.isfinite(overview.mean).all()
    assert overview.count.sum() == len(runs["turned"].layers("weight_norm"))


def test_runs_in_turns_compare(runs: dict[str, Run]) -> None:
    same = diff(runs["turned"].path, runs["again"].path)
    assert (same.layers["distance"].dropna() == 0).all()
    norms = same.layers.query("metric == 'weight_norm'").set_index("layer")
    wanted = [len(range(t, STEPS, TURNS)) for t in turns_of(
        runs["turned"].manifest, runs["turned"].layer_names
    )]  # fmt: skip
    assert norms.loc[runs["turned"].layer_names, "steps"].tolist() == wanted
    whole = same.roll_ups.query("layer == '*' and metric == 'weight_norm'")
    assert whole["steps"].tolist() == [STEPS - TURNS + 1]
    other = diff(runs["turned"].path, runs["plain"].path)
    norms = other.layers.query("metric == 'weight_norm'").set_index("layer")
    assert (norms["distance"] == 0).all()
    assert norms.loc[runs["turned"].layer_names, "steps"].tolist() == wanted
