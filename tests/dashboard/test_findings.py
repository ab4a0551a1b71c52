from pathlib import Path

import torch

from dynoscope import open_run
from dynoscope.dashboard.findings import findings_list
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.theme import scheme
from dynoscope.findings import Finding
from tests.findings.trainings import normalized, train


def test_warnings_are_shown_and_notes_folded(tmp_path: Path) -> None:
    states, said = {}, {}
    for name, decay in (("decayed", 1e-3), ("plain", 0.0)):
        model = normalized(32)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=decay)
        found: list[Finding] = []
        train(model, optimizer, 10, tmp_path / name, found)
        states[name], said[name] = RunState(open_run(tmp_path / name)), found
        assert states[name].refresh()
        assert list(states[name].findings.values()) == found
    title, warning, notes = findings_list(states, scheme("light"))
    assert title.children[1].children == "decayed"
    head, message = warning.children
    assert head.children[0].children == "warning"
    assert head.children[1].children == "whole model"
    assert message.children == next(
        finding.message for finding in said["decayed"] if finding.rule == "adam_l2"
    )
    summary, *items = notes.children
    assert summary.children == f"{len(said['decayed']) - 1} notes"
    assert len(items) == len({f.rule for f in said["decayed"]}) - 1
    assert said["plain"] == findings_list({"plain": states["plain"]}, scheme("dark"))
