"""Rules that turn measurements into sentences, with evidence and a remedy."""

from dynoscope.findings.evidence import Evidence
from dynoscope.findings.examine import examine
from dynoscope.findings.finding import Finding
from dynoscope.findings.herald import Herald, OnFinding
from dynoscope.findings.judge import Judge
from dynoscope.findings.registry import RULES, Rule, rule
from dynoscope.findings.thresholds import Thresholds

__all__ = [
    "RULES",
    "Evidence",
    "Finding",
    "Herald",
    "Judge",
    "OnFinding",
    "Rule",
    "Thresholds",
    "examine",
    "rule",
]
