"""Optimizers to study, each a `torch.optim.Optimizer` and readable alone."""

from dynoscope.optim.convex import L1, ConvexFunction, Huber, Lp, Threshold, TopK
from dynoscope.optim.lion import Lion
from dynoscope.optim.lionk import LionK
from dynoscope.optim.normgd import NormGD
from dynoscope.optim.sepnorm import OrtSepNorm, SepNorm

__all__ = [
    "L1",
    "ConvexFunction",
    "Huber",
    "Lion",
    "LionK",
    "Lp",
    "NormGD",
    "OrtSepNorm",
    "SepNorm",
    "Threshold",
    "TopK",
]
