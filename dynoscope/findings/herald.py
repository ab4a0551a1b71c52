"""Brings findings from the writer's thread to the user's: said, given, or raised."""

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, TypeAlias

import pyarrow as pa

from dynoscope.errors import FindingError, UnwatchableError
from dynoscope.findings.finding import Finding
from dynoscope.findings.judge import Judge
from dynoscope.measurement import Subject

__all__ = ["Herald", "OnFinding"]

OnFinding: TypeAlias = Callable[[Finding], object] | Literal["raise"] | None

SPOKEN: Final = ("error", "warning")
"""Severities that are said at once; notes can wait until someone asks."""


class Herald:
    """A judge whose findings are kept until the user's thread comes for them.

    Args:
        judge: makes the findings, on the writer's thread.
        on_finding: is called with each; "raise" raises those of severity `error`.
        quiet: say nothing.
        strict: raise an error in saying it, instead of saying no more.

    Attributes:
        found: how many findings there were so far.
        waiting: those that are to be delivered.

    Raises:
        UnwatchableError: on_finding is something else.
    """

    def __init__(
        self, judge: Judge, on_finding: OnFinding, *, quiet: bool, strict: bool = False
    ) -> None:
        if not (on_finding is None or on_finding == "raise" or callable(on_finding)):
            raise UnwatchableError(
                f'on_finding={on_finding!r}: pass a function of a finding, or "raise"'
            )
        self._judge, self._on_finding = judge, on_finding
        self._quiet, self._strict = quiet, strict
        self.waiting: collections.deque[Finding] = collections.deque()
        self._rules_said: set[str] = set()
        self.found = 0

    @property
    def problems(self) -> list[str]:
        """Which rules failed, and why."""
        return self._judge.problems

    def know(self, said: Iterable[tuple[str, str]]) -> None:
        """What need not be said any more; see `Judge.know`."""
        self._judge.know(said)

    def restart(self, subject: Subject) -> None:
        """Begin anew with other layers; see `Judge.restart`."""
        self._judge.restart(subject)

    def feed(self, tables: Mapping[str, pa.Table]) -> list[Finding]:
        """Take in rows; see `Judge.feed`."""
        return self._keep(self._judge.feed(tables))

    def finish(self) -> list[Finding]:
        """Ask once more; see `Judge.finish`."""
        return self._keep(self._judge.finish())

    def deliver(self, *, only_say: bool = False) -> None:
        """Say and hand over what was found; for the user's thread.

        Args:
            only_say: neither call nor raise.

        Raises:
            FindingError: a finding of severity `error`, if that was asked for.
        """
        if not self.waiting:
            return
        found = [self.waiting.popleft() for _ in range(len(self.waiting))]
        if not self._quiet:
            self._say(found)
        if only_say or self._on_finding is None:
            return
        for finding in found:
            if self._on_finding != "raise":
                self._on_finding(finding)
            elif finding.severity == "error":
                raise FindingError(
                    f"{finding.layer}: {finding.message} (rule {finding.rule!r}; "
                    'watch was called with on_finding="raise")'
                )

    def _keep(self, found: list[Finding]) -> list[Finding]:
        self.found += len(found)
        self.waiting.extend(found)
        return found

    def _say(self, found: list[Finding]) -> None:
        """One paragraph a rule, once: a run of many layers must not flood a log."""
        loud = [
            finding
            for finding in found
            if finding.severity in SPOKEN and finding.rule not in self._rules_said
        ]
        if loud:
            from dynoscope.findings.text import print_live

            self._rules_said.update(finding.rule for finding in loud)
            try:
                print_live(loud)
            except (OSError, ValueError):
                self._quiet = True  # standard error is closed: there is no one to tell
            except Exception as error:
                self._quiet = True
                self.problems.append(
                    "findings are recorded, but cannot be said "
                    f"({type(error).__name__}: {error})"
                )
                if self._strict:
                    raise
