"""Findings as the command line shows them."""

import io
import json
import subprocess
import sys
from pathlib import Path

import torch
from rich.console import Console

import dynoscope
from dynoscope.findings import Finding, examine
from dynoscope.findings.text import print_findings
from tests.findings.trainings import normalized, train


def test_the_command_fits_in_80_columns(tmp_path: Path) -> None:
    said: list[Finding] = []
    model = normalized(32)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=1e-3)
    train(model, optimizer, 20, tmp_path / "run", said)
    shown = io.StringIO()
    found = examine(dynoscope.open_run(tmp_path / "run"))
    print_findings("run", found, Console(file=shown, width=80, highlight=False))
    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("run: 1 warning, ")
    assert text.index("adam_l2") < text.index("decayed_gains")
    assert "and 4 more layers" in text
    command = [sys.executable, "-m", "dynoscope", "findings", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [finding.row() for finding in said]


def test_nothing_odd_is_said_too() -> None:
    shown = io.StringIO()
    print_findings("mine", [], Console(file=shown))
    assert shown.getvalue() == "mine: nothing odd was found.\n"
