"""Predictions from hyperparameters: pure NumPy, vectorised over layers.

Theory is data beside measurement. `equilibrium` is the front door; the modules
hold the single formulas, one term of the field each.
"""

from dynoscope.theory import adam_l2, autocorrelation, decoupled, normgd, sgdm
from dynoscope.theory.equilibrium import DECOUPLED, Equilibrium, equilibrium
from dynoscope.theory.hyperparameters import Hyperparameters

__all__ = [
    "DECOUPLED",
    "Equilibrium",
    "Hyperparameters",
    "adam_l2",
    "autocorrelation",
    "decoupled",
    "equilibrium",
    "normgd",
    "sgdm",
]
