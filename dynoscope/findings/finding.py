"""What a rule found: a sentence, the numbers behind it, and where it is written."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

__all__ = ["SEVERITIES", "WHOLE", "Finding", "Severity"]

Severity: TypeAlias = Literal["note", "warning", "error"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""The worst first."""

WHOLE: Final = "*"
"""The layer of a finding that is about the whole model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is odd about one layer.

    Attributes:
        severity: `error` (the training is lost), `warning` (it is likely worse than
            it could be) or `note` (good to know).
        step: optimizer step from which on it holds, as near as is known.
        layer: the layer's name, `*` for the whole model.
        message: what happened, with numbers; then what to do about it.
        evidence: the numbers, by name.
        source: paper and section that the rule rests on.
        rule: name of the rule; the judge fills it in.
    """

    severity: Severity
    step: int
    layer: str
    message: str
    evidence: Mapping[str, float] = dataclasses.field(default_factory=dict)
    source: str = ""
    rule: str = ""

    def __post_init__(self) -> None:
        """Check what a user's rule may get wrong."""
        if self.severity not in SEVERITIES:
            raise ValueError(
                f"severity={self.severity!r}: it is one of {', '.join(SEVERITIES)}"
            )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Finding":
        """From a row of the `findings` table, evidence as JSON."""
        return cls(**{**row, "evidence": json.loads(row["evidence"])})

    def row(self) -> dict[str, Any]:
        """As a row of the `findings` table, evidence as a mapping."""
        # Rules work with numpy; what is kept are plain numbers.
        evidence = {name: float(value) for name, value in self.evidence.items()}
        return {
            "step": int(self.step),
            "layer": self.layer,
            "rule": self.rule,
            "severity": self.severity,
            "message": self.message,
            "evidence": evidence,
            "source": self.source,
        }
