import numpy as np
import pyarrow as pa

from dynoscope.schema.pivot import pivot


def test_pivot_places_rows_by_step_and_layer() -> None:
    rows = pa.table({
        "step": [4, 3, 3, 4],
        "layer": ["b", "b", "other", "a"],
        "x": pa.array([4.2, 3.2, 9.0, 4.1], pa.float32()),
    })  # fmt: skip
    found = pivot(rows, "layer", ["a", "b"])
    assert found["step"].tolist() == [3, 4]
    np.testing.assert_array_equal(
        found["x"], np.array([[np.nan, 3.2], [4.1, 4.2]], np.float32)
    )
