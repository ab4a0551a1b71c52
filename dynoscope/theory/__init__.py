"""Predictions from hyperparameters: pure NumPy, vectorised over layers.

Theory is data beside measurement. `equilibrium` (where a layer settles), `trajectory`
(where a schedule takes it) and `plan` and `convert` (the way back to lr and weight
decay) are the front doors; the modules hold the single formulas, one term of the field
each.
"""

from dynoscope.theory import (
    adam_l2,
    autocorrelation,
    box,
    decoupled,
    geometry,
    lyapunov,
    moments,
    normgd,
    quadratics,
    scale_sensitivity,
    sgdm,
)
from dynoscope.theory.equilibrium import DECOUPLED, Equilibrium, equilibrium
from dynoscope.theory.hyperparameters import Hyperparameters
from dynoscope.theory.planning import Plan, convert, plan
from dynoscope.theory.trajectory import Integrator, Trajectory, trajectory

__all__ = [
    "DECOUPLED",
    "Equilibrium",
    "Hyperparameters",
    "Integrator",
    "Plan",
    "Trajectory",
    "adam_l2",
    "autocorrelation",
    "box",
    "convert",
    "decoupled",
    "equilibrium",
    "geometry",
    "lyapunov",
    "moments",
    "normgd",
    "plan",
    "quadratics",
    "scale_sensitivity",
    "sgdm",
    "trajectory",
]
