"""Predictions from hyperparameters: pure NumPy, vectorised over layers.

Theory is data beside measurement. `equilibrium` is the front door; the modules
hold the single formulas, one term of the field each.
"""

from dynoscope.theory import (
    adam_l2,
    autocorrelation,
    decoupled,
    moments,
    normgd,
    scale_sensitivity,
    sgdm,
)
from dynoscope.theory.equilibrium import DECOUPLED, Equilibrium, equilibrium
from dynoscope.theory.hyperparameters import Hyperparameters
from dynoscope.theory.trajectory import Integrator, Trajectory, trajectory

__all__ = [
    "DECOUPLED",
    "Equilibrium",
    "Hyperparameters",
    "Integrator",
    "Trajectory",
    "adam_l2",
    "autocorrelation",
    "decoupled",
    "equilibrium",
    "moments",
    "normgd",
    "scale_sensitivity",
    "sgdm",
    "trajectory",
]
