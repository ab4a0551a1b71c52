"""Numbers that leave float32's range, or even float64's, are recorded as they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dynoscope
from dynoscope.findings import examine
from tests.networks import OPTIMIZERS, MixedNet, train


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("size", [1e-30, 1e30, float("inf")])
def test_losses_of_every_size(name: str, size: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MixedNet()
    optimizer = OPTIMIZERS[name](model)
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: grad * size)
    with dynoscope.watch(
        model, optimizer, run=tmp_path / "run", strict=True, quiet=True
    ):
        train(model, optimizer, 4)
    run = dynoscope.open_run(tmp_path / "run")
    assert run.problems == []
    recorded = run.findings()["rule"].tolist()
    assert [finding.rule for finding in examine(run)] == recorded
    rows = run.layers()
    assert rows["step"].nunique() == 4
    if np.isinf(size):
        assert (rows.loc[rows["step"] == 0, "nonfinite"] > 0).any()
