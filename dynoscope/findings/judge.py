"""Asks the rules, now and then, while measurements come in."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

import dynoscope.findings.rules  # noqa: F401 (fills the table of rules)
from dynoscope.findings.evidence import Evidence
from dynoscope.findings.finding import Finding
from dynoscope.findings.history import ChannelTotals, History
from dynoscope.findings.registry import RULES, Rule
from dynoscope.findings.thresholds import Thresholds
from dynoscope.measurement import Subject
from dynoscope.reader import Block, pivot

__all__ = ["Judge"]

SHORTEST: Final = 8
LONGEST: Final = 256
"""Measured steps between two looks: a quarter of those so far, within these bounds."""


class Judge:
    """Turns rows as they are recorded into findings.

    When the rules are asked depends on nothing but the rows, so a recorded run gives
    the findings that it gave while it was recorded. The first NaN does not wait.

    Args:
        subject: what is watched.
        thresholds: from where on rules speak up.
        rules: the rules to ask, by name; None for all that are registered.

    Attributes:
        problems: which rules failed, and why.
    """

    def __init__(
        self,
        subject: Subject,
        thresholds: Thresholds | None = None,
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        self._thresholds = thresholds or Thresholds()
        self._rules = dict(RULES if rules is None else rules)
        self._said: set[tuple[str, str]] = set()
        self.problems: list[str] = []
        self.restart(subject)

    def restart(self, subject: Subject) -> None:
        """Begin anew, with other layers; what was said is not said again."""
        self._subject = subject
        self._names = [layer.name for layer in subject.layers]
        norms = subject.normalization
        self._history = History(len(self._names))
        self._channels = ChannelTotals(
            [norm.name for norm in norms], [norm.channels for norm in norms]
        )
        self._latest: list[Block] = []
        self._next_look = SHORTEST
        self._calm = True  # no NaN so far

    def know(self, findings: Iterable[tuple[str, str]]) -> None:
        """Do not say again what was found before, by rule and layer."""
        self._said.update(findings)

    def feed(self, tables: Mapping[str, pa.Table]) -> list[Finding]:
        """Take in rows of `layers` and `normalization`, of the same steps.

        Returns:
            What is new; each rule speaks of each layer once.
        """
        layers = pivot(tables["layers"], "layer", self._names)
        norms = None
        if "normalization" in tables and self._channels.names:
            norms = pivot(tables["normalization"], "layer", self._channels.names)
        found: list[Finding] = []
        for piece in self._pieces(layers):
            self._history.add(piece)
            self._latest.append(piece)
            if norms is not None:
                self._channels.add(_between(norms, piece["step"][0], piece["step"][-1]))
            if self._history.measured >= self._next_look:
                measured = self._history.measured
                pause = int(np.clip(measured // 4, SHORTEST, LONGEST))
                self._next_look = measured + pause
                found += self._look(ended=False)
        return found

    def finish(self) -> list[Finding]:
        """Ask the rules once more, now that the run is over."""
        return self._look(ended=True) if self._history.measured else []

    def _pieces(self, block: Block) -> Iterator[Block]:
        """Cut rows where the rules are to be asked next."""
        bad = np.any(block["nonfinite"] > 0, axis=1)
        at, end = 0, len(block["step"])
        while at < end:
            measured = self._history.measured
            if self._calm and bad[at:].any():
                alarm = measured + int(bad[at:].argmax()) + 1
                if alarm <= self._next_look:
                    self._calm, self._next_look = False, alarm
            stop = min(at + self._next_look - measured, end)
            yield {name: column[at:stop] for name, column in block.items()}
            at = stop

    def _look(self, *, ended: bool) -> list[Finding]:
        evidence = Evidence(
            self._subject,
            self._thresholds,
            self._history,
            self._channels,
            _joined(self._latest),
            ended,
        )
        self._latest.clear()
        return [
            finding
            for name in list(self._rules)
            for finding in self._ask(name, evidence)
        ]

    def _ask(self, name: str, evidence: Evidence) -> Iterator[Finding]:
        """What a rule says that is new; a rule that fails is asked no more."""
        try:
            for finding in self._rules[name](evidence):
                if (name, finding.layer) not in self._said:
                    self._said.add((name, finding.layer))
                    yield dataclasses.replace(finding, rule=name)
        except Exception as error:
            del self._rules[name]
            self.problems.append(
                f"rule {name!r} failed and is off from now on; the others go on "
                f"({type(error).__name__}: {error})"
            )


def _between(block: Block, first: int, last: int) -> Block:
    within = (block["step"] >= first) & (block["step"] <= last)
    return {name: column[within] for name, column in block.items()}


def _joined(blocks: list[Block]) -> Block:
    if not blocks:
        return {}
    return {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
