"""What a roll-up needs of its layers, against one that is given everything."""

import numpy as np
import pytest

from dynoscope.reader.rollup import needed_for, roll_up_columns
from dynoscope.schema import TABLES

METRICS = [c.name for c in TABLES["layers"].columns if c.role != "key"]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_nothing_else_is_needed(metric: str, layers: int) -> None:
    random = np.random.default_rng(0)
    every = {name: random.uniform(0.1, 0.9, (5, layers)) for name in METRICS}
    every["nonfinite"] = np.zeros((5, layers))
    every["nonfinite"][2, 0] = np.nan  # its optimizer did not step
    numel = {"numel": np.full((5, layers), 100.0)}
    few = {name: every[name] for name in needed_for([metric])}
    with np.errstate(invalid="ignore"):  # nothing over nothing, where none stepped
        found = roll_up_columns({**few, **numel}, [metric])
        wanted = roll_up_columns({**every, **numel})[metric]
    assert list(found) == [metric]
    np.testing.assert_array_equal(found[metric], wanted)
    if metric in ("lr", "weight_decay", "pred_half_life") and layers > 1:
        return  # unknown where layers differ
    assert np.isfinite(wanted[[0, 1, 3, 4]]).all()
