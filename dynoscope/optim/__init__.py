"""Optimizers to study, each a `torch.optim.Optimizer` and readable alone."""

from dynoscope.optim.convex import L1, ConvexFunction, Huber, Lp, Threshold, TopK
from dynoscope.optim.gain import Gain, add_gain, fold_gain
from dynoscope.optim.lion import Lion
from dynoscope.optim.lionk import LionK
from dynoscope.optim.normgd import NormGD
from dynoscope.optim.rotational import Rotational
from dynoscope.optim.sepnorm import OrtSepNorm, SepNorm

__all__ = [
    "L1",
    "ConvexFunction",
    "Gain",
    "Huber",
    "Lion",
    "LionK",
    "Lp",
    "NormGD",
    "OrtSepNorm",
    "Rotational",
    "SepNorm",
    "Threshold",
    "TopK",
    "add_gain",
    "fold_gain",
]
