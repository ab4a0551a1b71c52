"""Histograms of a run against NumPy's over what the training held."""

from pathlib import Path

import numpy as np
import torch

import dynoscope
from tests.networks import OPTIMIZERS, Digits, MixedNet, mixed_loss


def test_a_run_holds_what_there_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, data = MixedNet(), Digits()
    optimizer = OPTIMIZERS["lion"](model)
    kept = {}
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", histograms=True, strict=True, quiet=True
    ):
        for step in range(12):
            mixed_loss(model, data).backward()
            for name, p in model.named_parameters():
                assert p.grad is not None
                kept[step, name, "weight"] = p.detach().clone().numpy()
                kept[step, name, "gradient"] = p.grad.clone().numpy()
            optimizer.step()
            optimizer.zero_grad()
    run = dynoscope.open_run(tmp_path / "run")
    frame = run.histograms()
    assert len(frame) == 2 * len(run.layer_names) * frame["step"].nunique()
    assert frame["step"].unique().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    for row in frame.to_dict("records"):
        values = kept[row["step"], row["layer"], row["quantity"]].ravel()
        edges = row["edges"]
        assert (np.diff(edges) > 0).all()
        assert row["counts"].sum() == values.size
        assert edges[0] <= values.min()
        assert values.max() <= edges[-1]
        # How many are above an edge does not depend on what a bin's edge belongs to.
        for edge, above in zip(
            edges[1:], row["counts"].sum() - row["counts"].cumsum(), strict=True
        ):
            if not (values == edge).any():
                assert (values > edge).sum() == above
    chosen = run.histograms("project.weight", 3)
    assert chosen["quantity"].tolist() == ["weight", "gradient"]


def test_they_follow_the_schedule(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", every=4, histograms=True, quiet=True
    ):
        for _ in range(9):
            optimizer.step()
    frame = dynoscope.open_run(tmp_path / "run").histograms()
    assert frame["step"].unique().tolist() == [0, 4, 8]
    assert set(frame["quantity"]) == {"weight"}  # there was no gradient


def test_none_unless_asked_for(tmp_path: Path) -> None:
    model = MixedNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with dynoscope.watch(model, optimizer, run=tmp_path / "run", quiet=True):
        optimizer.step()
    assert not (tmp_path / "run" / "histograms").exists()
    assert dynoscope.open_run(tmp_path / "run").histograms().empty
