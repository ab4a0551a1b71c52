"""Optimizers to study, each a `torch.optim.Optimizer` and readable alone."""

from dynoscope.optim.lion import Lion

__all__ = ["Lion"]
