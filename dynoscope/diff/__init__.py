"""Compare two runs over the steps that both measured."""

from dynoscope.diff.compare import diff
from dynoscope.diff.result import CommonSteps, Diff, Side

__all__ = ["CommonSteps", "Diff", "Side", "diff"]
