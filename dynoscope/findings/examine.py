"""The same rules, over a run that is recorded."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynoscope.findings.evidence import subject_of
from dynoscope.findings.finding import Finding
from dynoscope.findings.judge import Judge
from dynoscope.findings.registry import Rule
from dynoscope.findings.thresholds import Thresholds
from dynoscope.reader import Run
from dynoscope.schema.arrow import arrow_schema

__all__ = ["examine"]

ROWS: Final = 1 << 17
"""Rows taken in at a time, so that a long run needs little memory."""


@np.errstate(all="ignore")  # as where the run was recorded
def examine(
    run: Run,
    thresholds: Thresholds | None = None,
    rules: Mapping[str, Rule] | None = None,
) -> list[Finding]:
    """Ask the rules about a recorded run; nothing is written to it.

    Args:
        run: the run; of one that goes on, what there is by now.
        thresholds: from where on rules speak up.
        rules: the rules to ask, by name; None for all that are registered.

    Returns:
        Findings in the order in which they were made.

    Raises:
        RuntimeError: rules failed; the message names them and says why.

    Warns:
        DynoscopeWarning: names each file that is damaged and was skipped.
    """
    judge = Judge(subject_of(run.manifest), thresholds, rules)
    layers, norms = (run.cursor(name) for name in ("layers", "normalization"))
    waiting = arrow_schema("normalization").empty_table()
    found: list[Finding] = []
    while len(rows := layers.poll(ROWS)):
        # Rows of both tables are of the same steps, but not in files of one size.
        last = pc.max(rows["step"])
        while len(more := norms.poll(ROWS)):
            waiting = pa.concat_tables([waiting, more])
            if pc.max(more["step"]).as_py() >= last.as_py():
                break
        due = pc.less_equal(waiting["step"], last)
        tables = {"layers": rows, "normalization": waiting.filter(due)}
        waiting = waiting.filter(pc.invert(due))
        found += judge.feed(tables)
    if run.status != "running":
        found += judge.finish()
    run.warn_of([*layers.problems.values(), *norms.problems.values()])
    if judge.problems:
        raise RuntimeError("; ".join(judge.problems))
    return found
