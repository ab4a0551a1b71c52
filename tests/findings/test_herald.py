"""Findings reach the user: on the training's thread, and in few words."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import dynoscope
from dynoscope.errors import FindingError, UnwatchableError
from dynoscope.findings import Finding
from dynoscope.recorder import judging, recorder
from tests.findings.trainings import batches, normalized

LONG = 100_000
"""Steps that no test gets to."""


def fit(folder: Path, steps: int, bad_step: int | None = None, **options: Any) -> int:
    """Train; give the number of steps that were taken."""
    model = normalized(32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    taken = 0
    with dynoscope.watch(model, optimizer, run=folder, **options):
        for points, labels in batches(steps):
            loss = torch.nn.functional.cross_entropy(model(points), labels)
            (loss * (torch.nan if taken == bad_step else 1)).backward()
            optimizer.step()
            optimizer.zero_grad()
            taken += 1
    return taken


def test_a_function_is_called_on_the_training_thread(tmp_path: Path) -> None:
    threads = []

    def take(finding: Finding) -> None:
        threads.append(threading.current_thread())
        if finding.rule == "adam_l2":
            raise StopIteration

    with pytest.raises(StopIteration):
        fit(tmp_path / "run", LONG, on_finding=take, quiet=True)
    assert set(threads) == {threading.current_thread()}
    run = dynoscope.open_run(tmp_path / "run")
    assert run.status == "failed"
    assert run.problems == []


def test_raise_ends_the_training_at_an_error(tmp_path: Path) -> None:
    with pytest.raises(FindingError, match=r"since step 5.*rule 'nonfinite'"):
        fit(tmp_path / "long", LONG, 5, on_finding="raise", quiet=True)
    run = dynoscope.open_run(tmp_path / "long")
    assert run.exception is not None
    assert run.exception.startswith("FindingError: ")
    with pytest.raises(FindingError):  # at the end of the block at the latest
        fit(tmp_path / "short", 7, 5, on_finding="raise", quiet=True)
    # A warning is no reason to end a training.
    assert fit(tmp_path / "fine", 20, on_finding="raise", quiet=True) == 20


def test_nan_does_not_wait_for_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "PATIENCE", 1e6)
    with pytest.raises(FindingError, match=r"since step 5"):
        fit(tmp_path / "run", LONG, 5, on_finding="raise", quiet=True)
    assert dynoscope.open_run(tmp_path / "run").layers("lr")["step"].max() < LONG // 2


@pytest.mark.parametrize("bad_step", [None, 70])
def test_findings_are_the_same_however_many_rows_are_shown_at_once(
    bad_step: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for patience in (0.0, 1e6):
        monkeypatch.setattr(judging, "PATIENCE", patience)
        monkeypatch.setattr(recorder, "INTERVAL", 0.01)
        folder = tmp_path / f"{patience:.0f}"
        torch.manual_seed(0)
        fit(folder, 100, bad_step, every=1, quiet=True)
        rows = dynoscope.open_run(folder).findings()
        found.append(set(zip(rows["rule"], rows["layer"], rows["step"], strict=True)))
    assert found[0] == found[1]
    assert len(found[0]) > (1 if bad_step is None else 8)


def test_an_exception_of_the_block_is_not_hidden(tmp_path: Path) -> None:
    folder, model = tmp_path / "run", normalized(32)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=1e-3)

    def fail() -> None:
        with dynoscope.watch(model, optimizer, run=folder, on_finding="raise"):
            model(torch.full((4, 16), torch.nan)).sum().backward()
            optimizer.step()
            raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        fail()
    rules = dynoscope.open_run(folder).findings()["rule"]
    assert "nonfinite" in set(rules)


def test_it_is_said_once_a_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    fit(tmp_path / "run", 60, 40)
    said = capsys.readouterr().err
    assert said.count("dynoscope: ") == 2
    assert said.count("dynoscope: warning since step 0, whole model: Adam adds") == 1
    assert said.count("dynoscope: error since step 40, ") == 1
    assert "and 7 more layers" in re.sub(r"\s+", " ", said)
    assert "decayed_gains" not in said
    assert said.count("\n") <= 12
    fit(tmp_path / "quiet", 60, 40, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_on_finding_is_a_function_or_raise(tmp_path: Path) -> None:
    with pytest.raises(UnwatchableError, match=r"on_finding='stop'.*or \"raise\""):
        fit(tmp_path / "run", 1, on_finding="stop")
    assert not (tmp_path / "run").exists()
