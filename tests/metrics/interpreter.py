"""Triton's interpreter, which runs kernels on the CPU."""

import os

import pytest

from dynoscope.metrics.sums import guarded

__all__ = ["interpret"]


def interpret(patch: pytest.MonkeyPatch) -> None:
    """Let it take the sums on the CPU; skip where that is impossible."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton compiles for a GPU in this process")
    patch.setattr(guarded, "DEVICES", ["cpu"])
