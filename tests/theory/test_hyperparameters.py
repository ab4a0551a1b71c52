from typing import Any

import numpy as np
import pytest

from dynoscope.errors import TheoryError
from dynoscope.theory import Hyperparameters

GOOD: dict[str, Any] = {"numel": 64, "lr": 1e-2, "weight_decay": 0.5}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"numel": 0}, "numel is 0 but must be >= 1"),
        ({"numel": [64, np.nan]}, "numel is nan"),
        ({"lr": -1e-3}, "lr is -0.001 but must be >= 0"),
        ({"lr": np.nan}, "lr is nan"),
        ({"lr": np.inf}, "lr is inf"),
        ({"lr": "fast"}, "lr must be numbers, got 'fast'"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1 but must be >= 0"),
        ({"lr": 0.5, "weight_decay": 2}, r"below 1, got 0.5 \* 2"),
        ({"lr": [0.1, 0.2], "weight_decay": [1, 6]}, r"below 1, got 0.2 \* 6"),
        ({"betas": (1.0, 0.99)}, r"beta1 is 1 but must lie in \[0, 1\)"),
        ({"betas": (0.9, -0.1)}, r"beta2 is -0.1 but must lie in \[0, 1\)"),
        ({"betas": (0.9,)}, r"betas must be \(beta1, beta2\)"),
        ({"betas": 0.9}, r"betas must be \(beta1, beta2\)"),
        ({"momentum": 1}, r"momentum is 1 but must lie in \[0, 1\)"),
        ({"dampening": 1}, r"dampening is 1 but must lie in \[0, 1\)"),
        ({"effective_grad_sq": -1}, "effective_grad_sq is -1 but must be >= 0"),
        ({"effective_grad_sq": np.inf}, "effective_grad_sq is inf"),
        ({"numel": [1, 2], "lr": [1e-3] * 3}, r"\(2,\), \(3,\) do not broadcast"),
    ],
)
def test_bad_values_are_named_with_a_cure(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(TheoryError, match=message):
        Hyperparameters.checked(**(GOOD | bad))


def test_values_become_float64_arrays_that_broadcast() -> None:
    hyper = Hyperparameters.checked(
        numel=np.array([64, 256], dtype=np.int32),
        lr=np.float32(0.5),
        weight_decay=0,
        betas=(0.9, [[0.99], [0.999]]),
        effective_grad_sq=[1.0, np.nan],
    )
    assert hyper.numel.dtype == hyper.lr.dtype == np.float64
    assert hyper.shape == (2, 2)


def test_no_layers_are_no_error() -> None:
    assert Hyperparameters.checked(numel=[], lr=0.1, weight_decay=0.1).shape == (0,)
