"""What is taken from one optimizer, around its step."""

import math
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from dynoscope.hooks.optimizers import Group, box_limit, capture
from dynoscope.hooks.scaler import Scaling, unscaled
from dynoscope.hooks.states import States
from dynoscope.hooks.subject import Moved, Watched
from dynoscope.hooks.wrappers import imposed_rotation
from dynoscope.loss_scale import ScalerState
from dynoscope.measurement import GroupState, Subject
from dynoscope.metrics.sums import Counted, Histograms, Kernel, SecondMoment, Spec
from dynoscope.sharding import aligned, layout, local
from dynoscope.theory import DECOUPLED

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Follower", "followers_of", "is_nested_step"]

_T = TypeVar("_T", Tensor, Tensor | None)
_S = TypeVar("_S")


class _Due(NamedTuple):
    """Layers of one turn.

    Attributes:
        at: where they stand among the optimizer's.
        parameters: theirs.
        groups: which of the optimizer's groups each is in.
        states: what the optimizer keeps of each.
    """

    at: Sequence[int]
    parameters: Sequence[Tensor]
    groups: Sequence[int]
    states: States


class Follower:
    """Takes the sums of one optimizer's layers, before and after its step.

    Args:
        moved: the optimizer and its layers.
        subject: what is watched, of all optimizers.
        kernel: takes the sums.
        part: index of this optimizer in it.

    Attributes:
        moved: the same.
        at: where its layers stand among all.
        grads: gradients of the step that is being measured, layer by layer.
        groups: gives each parameter group's hyperparameters at that step.
        limits: half the width of the box that weight decay holds each layer in.
        counted: histograms of that step, if they were taken.
        scaling: what scales its gradients, if anything does.
        scaler: gives the state of that at the same step.
    """

    def __init__(
        self, moved: Moved, subject: Subject, kernel: Kernel, part: int
    ) -> None:
        self.moved, self._kernel, self._part = moved, kernel, part
        self._layers = [subject.layers[i] for i in moved.layers]
        self.at = np.array(moved.layers, np.intp)
        self._group_of = [layer.group - moved.first_group for layer in self._layers]
        self._is_sharded = any(layout(p) is not None for p in moved.parameters)
        self._count_groups = len(moved.optimizer.param_groups)
        kinds = subject.optimizer.kinds[moved.first_group :]
        self._kinds = kinds[: self._count_groups]
        pairs = zip(self._group_of, self._layers, strict=True)
        self._rotational_groups = {group for group, layer in pairs if layer.rotational}
        self.grads: list[Tensor | None] = [None] * len(self._layers)
        self.limits = [math.inf] * len(self._layers)
        self._boxes: list[float] | None = None
        self.groups: list[Callable[[], GroupState]] = []
        self.counted: list[Counted] = []
        self._histograms: Histograms | None = None
        self.scaling = Scaling(moved.optimizer)
        self.scaler: Callable[[], ScalerState] | None = None
        self._stepped = self._looked_again = False
        self._turn, self._dues = 0, dict[int, _Due]()

    def is_current(self) -> bool:
        """Whether the optimizer has the same parameters, and is what it looked like.

        What an optimizer keeps in its state is there to be seen after its first step.
        """
        if self._stepped and not self._looked_again:
            self._looked_again = True
            if self.moved.adapter.misfit(self.moved.optimizer):
                return False
        return self.moved.is_current()

    def before(
        self, has_closure: bool, turn: int, *, count: bool, failed: bool = False
    ) -> None:
        """Take what is there before the step.

        Args:
            has_closure: whether the step was given a closure.
            turn: whose turn it is; of other layers no sums are taken.
            count: whether to take histograms, too, of all layers.
            failed: take nothing, but let no other process wait.
        """
        self.scaler, self._turn = self.scaling.read(), turn
        # A closure computes the gradients inside the step: those here are stale.
        stale: list[Tensor | None] = [None] * len(self._layers)
        self.grads = stale if has_closure else self._gradients(count)
        momenta = self._momenta()
        if failed:
            return
        groups = self._groups
        self.groups = [
            capture(group, self._rotation(index)) for index, group in enumerate(groups)
        ]
        self._look_for_boxes(groups)
        self.counted = self._count() if count else []
        self._kernel.before(self.grads, momenta, self.limits, self._part, turn)

    def at_gradients(self, *, count: bool, failed: bool = False) -> None:
        """Take what needs the gradients, which a closure has computed just now.

        Args:
            count: whether to take histograms, too.
            failed: take nothing, but let no other process wait.
        """
        self.grads = self._gradients(count)
        momenta = self._momenta()
        if failed:
            return
        self.counted = self._count() if count else []
        self._kernel.before(
            self.grads, momenta, self.limits, self._part, self._turn, again=True
        )

    def keep_gradients(self) -> None:
        """Keep them as they are, though their tensors be overwritten."""
        self.grads = [g if g is None else g.detach().clone() for g in self.grads]

    def after(self, *, failed: bool = False) -> None:
        """Take what the step has changed.

        Args:
            failed: take nothing, but let no other process wait.
        """
        seconds, momenta = self._second_moments(), self._momenta
        if self._is_sharded:  # where finding them takes all processes
            found = momenta()
            momenta = lambda: found  # noqa: E731
        if not failed:
            self._kernel.after(self.grads, momenta, seconds, self._part, self._turn)
        self._stepped = True

    @property
    def _due(self) -> "_Due":
        """The layers whose turn it is."""
        due = self._dues.get(self._turn)
        if due is None:
            moved = self.moved
            at = [k for k, la in enumerate(self._layers) if la.turn == self._turn]
            parameters = [moved.parameters[k] for k in at]
            states = States(moved.optimizer, moved.adapter, parameters)
            due = _Due(at, parameters, [self._group_of[k] for k in at], states)
            self._dues[self._turn] = due
        return due

    def _gradients(self, all_turns: bool) -> list[Tensor | None]:
        """Gradients of now, as the optimizer is to take them."""
        at: Sequence[int] = self._due.at
        parameters: Sequence[Tensor] = self._due.parameters
        if all_turns:
            at, parameters = range(len(self._layers)), self.moved.parameters
        grads = self._all_here(self.moved.adapter.gradients(parameters), at)
        scale = self.scaling.of_gradients()
        return grads if scale is None else unscaled(grads, scale)

    def _count(self) -> list[Counted]:
        if self._histograms is None:
            self._histograms = Histograms(self.moved.parameters)
        layers = self.moved.layers
        return [
            Counted([layers[k] for k in at], counts)
            for at, counts in self._histograms.take(self.grads)
        ]

    def _momenta(self) -> list[Tensor | None]:
        due = self._due
        return self._all_here(self.moved.adapter.momenta(due.states.now()), due.at)

    def _second_moments(self) -> list[SecondMoment | None]:
        moved, (at, parameters, groups, states) = self.moved, self._due
        found = moved.adapter.second_moments(
            moved.optimizer, states.now(), groups, states.counts
        )
        if self._is_sharded:
            found = [
                moment and moment._replace(v=_here(moment.v, parameter))
                for moment, parameter in zip(found, parameters, strict=True)
            ]
        return self._placed(found, at)

    def _all_here(
        self, tensors: list[Tensor | None], at: Sequence[int]
    ) -> list[Tensor | None]:
        """The parts that are on this process, in the places of these layers."""
        if self._is_sharded:
            parameters = self.moved.parameters
            with torch.no_grad():
                tensors = [
                    _here(x, parameters[k]) for x, k in zip(tensors, at, strict=True)
                ]
        return self._placed(tensors, at)

    def _placed(self, found: list[_S | None], at: Sequence[int]) -> list[_S | None]:
        if len(at) == len(self._layers):
            return found
        placed: list[_S | None] = [None] * len(self._layers)
        for k, x in zip(at, found, strict=True):
            placed[k] = x
        return placed

    @property
    def _groups(self) -> list[Group]:
        """The parameter groups, but those that were added a moment ago."""
        optimizer, settings = self.moved.optimizer, self.moved.adapter.settings
        groups = optimizer.param_groups[: self._count_groups]
        return [settings(optimizer, group) for group in groups]

    def _rotation(self, group: int) -> float:
        """The angle that the optimizer imposes on a group's layers, if it does."""
        if group not in self._rotational_groups:
            return math.nan
        optimizer = self.moved.optimizer
        return imposed_rotation(optimizer, optimizer.param_groups[group])

    def _look_for_boxes(self, groups: Sequence[Group]) -> None:
        """Set `limits`; they are the same list as long as they are the same."""
        boxes = [
            box_limit(group) if kind in DECOUPLED else math.inf
            for group, kind in zip(groups, self._kinds, strict=True)
        ]
        if boxes != self._boxes:
            self._boxes = boxes
            self.limits = [
                # a norm that is kept knows no box
                math.inf if layer.rotational else boxes[group]
                for layer, group in zip(self._layers, self._group_of, strict=True)
            ]


def followers_of(
    watched: Watched, processes: "ProcessGroup | None"
) -> tuple[Kernel, list[Follower]]:
    """What takes the sums of all that is watched, and of each optimizer.

    Args:
        watched: what is watched.
        processes: those that have shards of it, if there are any.
    """
    norms = {channels.layer for channels in watched.subject.normalization}
    part_of = {i: k for k, m in enumerate(watched.optimizers) for i in m.layers}
    layers = watched.subject.layers
    specs = [
        Spec(
            parameter,
            rows=layer.rows > 0,
            channels=index in norms,
            part=part_of[index],
            turn=layer.turn,
        )
        for index, (parameter, layer) in enumerate(
            zip(watched.parameters, layers, strict=True)
        )
    ]
    kernel = Kernel(specs, processes)
    return kernel, [
        Follower(moved, watched.subject, kernel, part)
        for part, moved in enumerate(watched.optimizers)
    ]


def is_nested_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether this optimizer's step was called by its own step, as a parent's is.

    Tells a step inside a step from a step after one that raised: torch runs no
    post-hook when a step raises, so counting hooks alone would lose track.
    """
    calls = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if "profile_hook_step" in frame.f_code.co_qualname:
            calls += frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return calls > 1


def _here(tensor: _T, parameter: Tensor) -> _T:
    """The part of a gradient or moment that belongs to the parameter's local shard.

    It is laid out as the parameter, as a rule. A gradient that is yet to be summed,
    as sequence parallelism leaves it to the optimizer, is summed: a collective.
    """
    its_layout = layout(parameter)
    if tensor is None or its_layout is None:
        return tensor
    if layout(tensor) is None and tensor.shape == local(parameter).shape:
        return tensor  # of an optimizer that takes the shard for a whole tensor
    return local(aligned(tensor, its_layout))
