"""Effective weight decay of every layer and step, and what it predicts."""

import numpy as np

from dynoscope import theory
from dynoscope.errors import TheoryError
from dynoscope.measurement import FloatArray, Subject
from dynoscope.metrics.derive import LayerSums
from dynoscope.metrics.sensitivity import radial_part
from dynoscope.recorder.alike import places
from dynoscope.recorder.means import RunningMean
from dynoscope.recorder.settings import Settings

__all__ = ["EFFECTIVE_PREDICTIONS", "Sensitivity"]

EFFECTIVE_PREDICTIONS = ("weight_norm", "angular_update")
"""Fields of the equilibrium at the effective weight decay that are recorded."""


class Sensitivity:
    """Weight decay as it acts on each layer, the gradient's share included.

    Args:
        subject: what is watched.
    """

    def __init__(self, subject: Subject) -> None:
        self._numel = np.array([layer.numel for layer in subject.layers], float)
        self._kinds = subject.optimizer.kinds
        group_of = np.array([layer.group for layer in subject.layers])
        self._members = [
            places(np.flatnonzero(group_of == g)) for g in range(len(self._kinds))
        ]
        self._means = RunningMean(4, self._numel.size)

    def columns(self, settings: Settings, sums: LayerSums) -> dict[str, FloatArray]:
        """Take a batch of consecutive measured steps.

        Args:
            settings: of each parameter group.
            sums: of the layers, shape (steps, layers).

        Returns:
            `effective_weight_decay` and the `pred_effective_*` columns, shape
            (steps, layers). Predictions are NaN where the effective weight decay
            is not positive, or so large that a step would erase the weight.
        """
        radial = np.full_like(sums.weight_sq, np.nan)
        decay = np.empty_like(radial)
        for index, kind in enumerate(self._kinds):
            at = self._members[index]
            beta1, beta2, decay[:, at] = (
                settings[name][:, index : index + 1]
                for name in ("beta1", "beta2", "weight_decay")
            )
            radial[:, at] = radial_part(kind, sums.of_layers(at), beta1, beta2)
        weight_sq = np.where(np.isfinite(radial), sums.weight_sq, np.nan)
        fresh = [radial, weight_sq, sums.grad_sq * sums.weight_sq, sums.scaled_grad_sq]
        means = self._means.update(np.stack(fresh, axis=1))
        effective = theory.scale_sensitivity.effective_weight_decay(
            decay, means[:, 0], means[:, 1]
        )
        return {"effective_weight_decay": effective, **self._predict(settings, means)}

    def _predict(self, settings: Settings, means: FloatArray) -> dict[str, FloatArray]:
        shape = len(means), self._numel.size
        columns = {name: np.full(shape, np.nan) for name in EFFECTIVE_PREDICTIONS}
        for index, kind in enumerate(self._kinds):
            at = self._members[index]
            numel = self._numel[at]
            if kind is None or not numel.size:
                continue
            radial, weight_sq, effective_grad_sq, scaled_grad_sq = np.moveaxis(
                means[..., at], 1, 0
            )
            try:
                found = theory.scale_sensitivity.effective_equilibrium(
                    kind,
                    numel=numel,
                    weight_update=radial,
                    weight_sq=weight_sq,
                    effective_grad_sq=effective_grad_sq,
                    scaled_grad_sq=scaled_grad_sq if kind == "adamw" else None,
                    **settings.of_group(index),
                )
            except TheoryError:
                continue  # the plain prediction fails likewise, and says so
            for name, column in columns.items():
                column[:, at] = getattr(found, name)
        return {f"pred_effective_{name}": column for name, column in columns.items()}
