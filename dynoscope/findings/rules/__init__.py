"""The rules, by family; importing this registers them all."""

from dynoscope.findings.rules import (
    box,
    decay,
    equilibrium,
    gradient,
    nonfinite,
    stillness,
    tracing,
    warmup,
)

__all__ = [
    "box",
    "decay",
    "equilibrium",
    "gradient",
    "nonfinite",
    "stillness",
    "tracing",
    "warmup",
]
