"""The judge: when it asks, and what becomes of a rule that fails."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dynoscope
from dynoscope.findings import RULES, Evidence, Finding, Judge, Rule, examine, rule
from dynoscope.findings.evidence import subject_of
from dynoscope.optim import Lion
from tests.findings.trainings import normalized, of_rule, train


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dynoscope.Run:
    """A run that starts too fast and ends in NaN."""
    folder = tmp_path_factory.mktemp("judge") / "run"
    model = normalized(32)
    optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
    train(
        model, optimizer, 90, folder, [],
        loss_of=lambda step, loss: loss * (torch.nan if step == 77 else 1),
    )  # fmt: skip
    return dynoscope.open_run(folder)


def judged(run: dynoscope.Run, sizes: list[int]) -> list[Finding]:
    """Feed a recorded run in batches of these sizes, in turns."""
    judge = Judge(subject_of(run.manifest))
    tables = {name: run.table(name) for name in ("layers", "normalization")}
    found, start, turn = [], 0, 0
    while start < 90:
        stop = start + sizes[turn % len(sizes)]
        found += judge.feed({n: _between(t, start, stop) for n, t in tables.items()})
        start, turn = stop, turn + 1
    assert judge.problems == []
    return found + judge.finish()


def _between(table: pa.Table, start: int, stop: int) -> pa.Table:
    steps = table["step"].to_numpy()
    return table.filter(pa.array((steps >= start) & (steps < stop)))


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_findings_do_not_depend_on_batches(
    recorded: dynoscope.Run, sizes: list[int]
) -> None:
    assert judged(recorded, sizes) == judged(recorded, [90])


def test_each_rule_speaks_of_each_layer_once(recorded: dynoscope.Run) -> None:
    found = examine(recorded)
    said = [(finding.rule, finding.layer) for finding in found]
    assert len(said) == len(set(said))
    frame = recorded.findings()
    assert frame["rule"].tolist() == [name for name, _ in said]
    assert frame["evidence"][0] == found[0].row()["evidence"]
    assert frame["source"].str.len().min() > 0


def test_the_first_nan_does_not_wait(recorded: dynoscope.Run) -> None:
    judge = Judge(subject_of(recorded.manifest))
    tables = {name: recorded.table(name) for name in ("layers", "normalization")}
    found = judge.feed({n: _between(t, 0, 78) for n, t in tables.items()})
    assert {f.step for f in of_rule(found, "nonfinite").values()} == {77}


def test_a_rule_of_ones_own(tmp_path: Path) -> None:
    @rule("heavy")
    def heavy(evidence: Evidence) -> Iterator[Finding]:
        norm = evidence.column("weight_norm")[-1]
        for name, value in zip(evidence.names, norm.tolist(), strict=True):
            if value > 1:
                yield Finding(
                    severity="note", step=evidence.history.last_step, layer=name,
                    message=f"Its norm is {value:.2f}.", evidence={"norm": value},
                )  # fmt: skip

    try:
        with pytest.raises(ValueError, match="'heavy' already"):
            rule("heavy")(heavy)
        said: list[Finding] = []
        model = normalized(32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer, 10, tmp_path / "run", said)
    finally:
        del RULES["heavy"]
    found = of_rule(said, "heavy")
    assert "0.weight" in found
    assert "1.bias" not in found


def _raises(evidence: Evidence) -> Iterator[Finding]:
    raise ZeroDivisionError("by the user")
    yield


def _no_finding(evidence: Evidence) -> list[Finding]:
    return ["odd"]  # type: ignore[list-item]


def _bad_severity(evidence: Evidence) -> Iterator[Finding]:
    yield Finding(severity="bad", step=0, layer="*", message="")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (_raises, "ZeroDivisionError: by the user"),
        (_no_finding, "AttributeError"),
        (_bad_severity, "severity='bad': it is one of error, warning, note"),
    ],
)
def test_a_rule_that_fails_is_off_and_the_others_go_on(
    bad: Rule, cause: str, tmp_path: Path
) -> None:
    weights, said = [], []
    for rules in (None, {"bad": bad, **RULES}):
        model = normalized(32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        found: list[Finding] = []
        folder = tmp_path / f"{rules is None}"
        train(model, optimizer, 30, folder, found, rules=rules, strict=True)
        weights.append(torch.cat([p.detach().ravel() for p in model.parameters()]))
        said.append(found)
    assert torch.equal(*weights)
    assert said[0] == said[1] != []
    run = dynoscope.open_run(folder)
    (problem,) = run.problems
    assert problem.startswith("rule 'bad' failed and is off from now on")
    assert cause in problem
    assert run.layers()["step"].nunique() == 30
    with pytest.raises(RuntimeError, match="rule 'bad' failed"):
        examine(run, rules={"bad": bad})


def test_findings_can_be_left_out(tmp_path: Path) -> None:
    said: list[Finding] = []
    model = normalized(32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    train(model, optimizer, 10, tmp_path / "run", said, findings=False)
    assert said == []
    run = dynoscope.open_run(tmp_path / "run")
    assert run.findings().empty
    assert examine(run)
