import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dynoscope.diff import Diff, diff
from dynoscope.diff.phrases import change, number
from dynoscope.diff.text import print_diff
from tests.diff.runs import adamw, record


def printed(found: Diff, width: int) -> str:
    out = io.StringIO()
    print_diff(found, Console(file=out, width=width, highlight=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_it_fits(a: Path, b: Path, width: int) -> None:
    text = printed(diff(a, b), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("adamw", "lion", "Settings", "Whole model", "loss", "angular update"):
        assert word in text
    assert "\x1b" not in text


def test_the_numbers_are_the_diffs(a: Path, b: Path) -> None:
    found = diff(a, b)
    lines = printed(found, 80).splitlines()
    (line,) = (line for line in lines if line.startswith("angular update (rad)"))
    row: Any = found.whole.loc["angular_update"]
    for expected in (
        number(row["a"]),
        number(row["b"]),
        change("ratio", row["relative"]),
    ):
        assert f" {expected} " in line
    for layer in found.most_different()["layer"]:
        assert any(line.startswith(layer) for line in lines)


def test_long_names_are_cut_on_the_left(a: Path, tmp_path: Path) -> None:
    name = "a_head_with_a_very_long_name_that_goes_on_and_on"
    runs = [record(tmp_path / n, adamw, 3, head=name) for n in ("x", "y" * 70)]
    text = printed(diff(*runs), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "on_and_on.weight" in text
    assert f"\n{name}" not in text


def test_equal_runs(a: Path) -> None:
    text = printed(diff(a, a), 80)
    assert "Settings: 0 differ" in text
    assert "is equal at every common step" in " ".join(text.split())
