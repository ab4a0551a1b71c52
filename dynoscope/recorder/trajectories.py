"""Where each layer should be by now, from its first measured norm on."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dynoscope import theory
from dynoscope.errors import TheoryError
from dynoscope.measurement import FloatArray, Subject
from dynoscope.metrics.derive import LayerSums
from dynoscope.recorder.alike import places
from dynoscope.recorder.settings import Settings

__all__ = ["Trajectories"]

LONGEST_GAP: Final = 10_000
"""Most steps between two measured ones that layers are carried through."""


class Trajectories:
    """Carries every layer along the schedule, beside the training.

    A layer starts from its first measured norm that is not 0 and is given the
    gradients that were measured.

    Args:
        subject: what is watched.

    Attributes:
        problems: what went wrong, each once.
    """

    def __init__(self, subject: Subject) -> None:
        self.problems: dict[str, None] = {}
        self._carried = [
            _Carried(kind, groups, subject)
            for kind, groups in _together(subject.optimizer.kinds)
            # what layers that are not watched take of NormGD's step is not known
            if kind != "normgd" or "excluded" not in subject.unwatched.values()
        ]
        self._carried = [c for c in self._carried if c.layers]

    def predict(
        self,
        steps: npt.NDArray[np.int64],
        settings: Settings,
        sums: LayerSums,
    ) -> dict[str, FloatArray]:
        """Predict for a batch of consecutive measured steps.

        Args:
            steps: their numbers.
            settings: of each parameter group.
            sums: what was measured, each of shape (steps, layers).

        Returns:
            For each `traj_*` column, shape (steps, layers); NaN where no theory
            applies, and before a layer has started.
        """
        shape = sums.weight_sq.shape
        fields = theory.Trajectory._fields
        columns = {name: np.full(shape, np.nan) for name in fields}
        for carried in list(self._carried):
            try:
                found = carried.on(steps, settings, sums)
            except TheoryError as error:
                self.problems[f"no trajectory for {carried}: {error}"] = None
                self._carried.remove(carried)
                continue
            for name, values in columns.items():
                values[:, carried.members] = getattr(found, name)
        return {f"traj_{name}": column for name, column in columns.items()}


class _Carried:
    """The layers of some parameter groups of one kind."""

    def __init__(self, kind: str, groups: Sequence[int], subject: Subject) -> None:
        group_of = np.array([layer.group for layer in subject.layers])
        self._kind, self._groups = kind, groups
        numel = np.array([layer.numel for layer in subject.layers], float)
        self.members = places(np.flatnonzero(np.isin(group_of, groups)))
        self._group_of, self._numel = group_of[self.members], numel[self.members]
        self._integrator: theory.Integrator | None = None
        self._last = 0

    @property
    def layers(self) -> int:
        """How many they are."""
        return len(self._numel)

    def __str__(self) -> str:
        return f"group {', '.join(map(str, self._groups))}"

    def on(
        self,
        steps: npt.NDArray[np.int64],
        settings: Settings,
        sums: LayerSums,
    ) -> theory.Trajectory:
        """The next steps.

        Raises:
            TheoryError: the steps cannot be taken.
        """
        if self._integrator is None:
            settled = bool(steps[0] > 0)
            self._integrator = theory.Integrator(self._kind, settled=settled)
            self._last = int(steps[0])
        gap = int(np.diff(steps, prepend=self._last).max())
        if gap > LONGEST_GAP:
            raise TheoryError(
                f"{gap} steps went by unmeasured; measure every {LONGEST_GAP} at least"
            )
        self._last = int(steps[-1])
        given = self._given(settings)
        effective = (sums.grad_sq * sums.weight_sq)[:, self.members]
        effective[np.isinf(effective)] = np.nan
        # A layer that had no gradient and did not move was left out of the step.
        left_out = np.isnan(effective) & (sums.moved[:, self.members] == 0)
        if left_out.any():
            given = {**given, "lr": np.where(left_out, 0.0, given["lr"])}
        hyper = theory.Hyperparameters.checked(
            numel=self._numel, effective_grad_sq=effective, **given
        )
        norms = np.sqrt(sums.weight_sq[:, self.members])
        return self._integrator.advance(hyper, norms, steps.tolist())

    def _given(self, settings: Settings) -> Mapping[str, Any]:
        """A column for each layer, or one for all where they are of one group."""
        if len(self._groups) == 1:
            return settings.of_group(self._groups[0])
        return settings.of_layers(self._group_of)


def _together(kinds: Sequence[str | None]) -> list[tuple[str, list[int]]]:
    """Groups to carry together: each by itself, but those of NormGD share a step."""
    alone = [
        (kind, [index])
        for index, kind in enumerate(kinds)
        if kind is not None and kind != "normgd"
    ]
    sharing = [index for index, kind in enumerate(kinds) if kind == "normgd"]
    return [*alone, ("normgd", sharing)] if sharing else alone
