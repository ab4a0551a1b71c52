"""Predictions for layers whose rotation the optimizer imposes."""

import numpy as np

from dynoscope.measurement import FloatArray, Subject
from dynoscope.recorder.settings import Settings

__all__ = ["Imposed"]


class Imposed:
    """A rotational optimizer's layers: their angle is given, their norm is kept.

    The angle is the one that the inner optimizer would settle at; the norm is that
    of the first step measured. Both hold from the first step on, whatever the
    schedule, so that the trajectory is the equilibrium and the half-life is 0.

    Args:
        subject: what is watched.

    Source: Kosson et al. 2024, algorithm 1 and appendix M.
    """

    def __init__(self, subject: Subject) -> None:
        layers = subject.layers
        self._members = np.flatnonzero([layer.rotational for layer in layers])
        self._group = np.array([layers[i].group for i in self._members], dtype=int)
        self._norm = np.full(self._members.size, np.nan)

    def columns(
        self,
        settings: Settings,
        weight_norm: FloatArray,
        predicted: dict[str, FloatArray],
    ) -> dict[str, FloatArray]:
        """Put what is imposed in the place of what was predicted.

        Args:
            settings: of each parameter group.
            weight_norm: norms before each step, shape (steps, layers).
            predicted: `pred_*` and `traj_*` columns and what goes with them, of
                that shape; they are changed.

        Returns:
            The columns. For these layers all that is not imposed is NaN.
        """
        members = self._members
        if not members.size:
            return predicted
        angle = settings["rotation"][:, self._group]
        for row in weight_norm[:, members]:
            self._norm = np.where(np.isnan(self._norm), row, self._norm)
        norm = np.where(np.isnan(angle), np.nan, self._norm)
        imposed = {
            "pred_weight_norm": norm,
            "pred_angular_update": angle,
            "pred_update_rms": angle * norm,
            "pred_half_life": np.where(np.isnan(angle), np.nan, 0.0),
            "traj_weight_norm": norm,
            "traj_angular_update": angle,
        }
        for name, column in predicted.items():
            column[:, members] = imposed.get(name, np.nan)
        return predicted
