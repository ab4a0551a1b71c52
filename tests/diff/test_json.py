import json
from pathlib import Path
from typing import Any

import pytest

from dynoscope.diff import diff
from tests.diff.runs import adamw, record


def fail_on_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def parse(text: str) -> Any:
    return json.loads(text, parse_constant=fail_on_constant)


def test_it_is_strict_and_complete(a: Path, b: Path) -> None:
    found = diff(a, b)
    content = parse(found.to_json())
    assert content["a"]["name"] == "adamw"
    assert content["b"]["optimizer"] == "Lion"
    assert content["steps"] == {
        "common": 24, "first": 0, "last": 23, "of_a": 30, "of_b": 24,
    }  # fmt: skip
    assert content["summary"] == found.summary
    assert len(content["layers"]) == len(found.layers)
    row, expected = content["layers"][0], found.layers.iloc[0]
    assert row["layer"] == expected["layer"]
    assert row["a"] == pytest.approx(expected["a"], rel=1e-15)
    assert row["largest_step"] == expected["largest_step"]
    assert len(content["config"]) == len(found.config)
    assert len(content["most_different"]) == 5


def test_it_is_strict_with_nan_too(a: Path, tmp_path: Path) -> None:
    broken = record(tmp_path / "broken", adamw, 6, nan_from=0)
    parse(diff(a, broken).to_json())
