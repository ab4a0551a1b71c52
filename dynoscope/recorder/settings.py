"""What an optimizer was told, along the steps of a batch: one array for all who ask."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dynoscope.measurement import FloatArray, GroupState

__all__ = ["Settings"]

_AT: Final = {name: index for index, name in enumerate(GroupState._fields)}
_TAKEN: Final = ("lr", "weight_decay", "dampening", "nesterov")
"""Arguments of `theory.equilibrium` that are as they were recorded."""


class Settings:
    """Hyperparameters of an optimizer's parameter groups, step by step.

    Args:
        states: per step, the state of each group.
    """

    def __init__(self, states: Sequence[Sequence[GroupState]]) -> None:
        self._values: FloatArray = np.array(states, np.float64)
        self._of_group: dict[int, Mapping[str, Any]] = {}

    def __getitem__(self, name: str) -> FloatArray:
        """One field of `GroupState`, shape (steps, groups), float64."""
        return self._values[..., _AT[name]]

    def of_group(self, index: int) -> Mapping[str, Any]:
        """Arguments of `theory.equilibrium` for a group, each of shape (steps, 1)."""
        if index not in self._of_group:
            self._of_group[index] = self._arguments(slice(index, index + 1))
        return self._of_group[index]

    def of_layers(self, groups: npt.NDArray[np.intp]) -> Mapping[str, Any]:
        """The same for layers by their groups, each of shape (steps, layers)."""
        return self._arguments(groups)

    def _arguments(self, groups: slice | npt.NDArray[np.intp]) -> Mapping[str, Any]:
        # NaN stands for what this optimizer does not have.
        betas = self["beta1"][:, groups], self["beta2"][:, groups]
        return {
            **{name: self[name][:, groups] for name in _TAKEN},
            "betas": None if np.isnan(betas).any() else betas,
            "momentum": np.nan_to_num(self["momentum"][:, groups]),
        }
