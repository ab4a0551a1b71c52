"""Predictions for every layer and step, from the hyperparameters in force."""

import numpy as np

from dynoscope import theory
from dynoscope.errors import TheoryError
from dynoscope.measurement import FloatArray, Subject
from dynoscope.recorder.alike import Places, places
from dynoscope.recorder.means import RunningMean
from dynoscope.recorder.settings import Settings

__all__ = ["Predictor"]


class Predictor:
    """Equilibrium predictions, with the running means that some of them need.

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
        self._sharing = np.array([kind == "normgd" for kind in self._kinds])[group_of]
        self._sharing_all = "excluded" not in subject.unwatched.values()
        self._effective = RunningMean(self._numel.size)
        self.problems: dict[str, None] = {}
        self._unpredicted: set[int] = set()

    def predict(
        self, settings: Settings, effective_grad_sq: FloatArray
    ) -> dict[str, FloatArray]:
        """Predict for a batch of consecutive measured steps.

        Args:
            settings: of each parameter group.
            effective_grad_sq: ||g||^2 ||w||^2, shape (steps, layers), float64.

        Returns:
            For each `pred_*` column, shape (steps, layers); NaN where no theory
            applies.
        """
        means = self._effective.update(effective_grad_sq)
        shape = effective_grad_sq.shape
        columns = {name: np.full(shape, np.nan) for name in theory.Equilibrium._fields}
        for index, members in enumerate(self._members):
            self._predict_group(index, members, settings, means, columns)
        self._share(means, columns)
        return {f"pred_{name}": column for name, column in columns.items()}

    def _predict_group(
        self,
        index: int,
        members: Places,
        settings: Settings,
        means: FloatArray,
        columns: dict[str, FloatArray],
    ) -> None:
        kind, numel = self._kinds[index], self._numel[members]
        if kind is None or not numel.size:
            return
        try:
            found = theory.equilibrium(
                kind,
                numel=numel,
                effective_grad_sq=means[:, members],
                **settings.of_group(index),
            )
        except TheoryError as error:
            # Once a group: the error may name a learning rate that changes every step.
            if index not in self._unpredicted:
                self._unpredicted.add(index)
                self.problems[f"no prediction for group {index}: {error}"] = None
            return
        for name, values in columns.items():
            values[:, members] = getattr(found, name)

    def _share(self, means: FloatArray, columns: dict[str, FloatArray]) -> None:
        """Give each layer its part of what NormGD does with the whole model."""
        sharing = self._sharing
        if not sharing.any():
            return
        norm, rms = columns["weight_norm"], columns["update_rms"]
        share = theory.normgd.update_share(means[:, sharing], norm[:, sharing])
        if not self._sharing_all:
            share[:] = np.nan
            self.problems[
                "no predicted norms: NormGD normalizes the whole model, of which some "
                "layers are not watched, or take turns"
            ] = None
        # No share is too small for a norm that grows for ever.
        grows = np.isinf(norm[:, sharing])
        norm[:, sharing] *= np.sqrt(np.where(grows, 1.0, share))
        rms[:, sharing] *= np.sqrt(share)
