"""Both ways in which sums are taken on the CPU."""

import pytest

from dynoscope.metrics.sums.native import SWITCH, available


@pytest.fixture(params=["native", "eager"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernel, or torch's operations, as on an accelerator."""
    monkeypatch.setenv(SWITCH, str(int(request.param == "native")))
    assert available() == (request.param == "native")
