"""The record that flows from the hooks to the recorder.

A measured optimizer step yields one `Measurement`: packed sums as they left the
device, and the hyperparameters each parameter group had at that step. What the
packed numbers stand for is said once, by a `Subject`.

Every packed number is a SUM or a MAX over the elements of a unit of a layer, so
that units combine to layers, and layers to modules, exactly.
"""

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from dynoscope.loss_scale import ScalerState

__all__ = [
    "BOX_TOLERANCE",
    "CHANNEL_QUANTITIES",
    "UNIT_SUMS",
    "Channels",
    "FloatArray",
    "GroupState",
    "Host",
    "Layer",
    "Measurement",
    "OptimizerInfo",
    "Part",
    "Rows",
    "ScalarEntry",
    "Subject",
    "Sum",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]


class Sum(enum.IntEnum):
    """Rows of the packed tensor: what is summed over a layer's elements.

    `w` is the weight before the step, `w'` after it, `g` the gradient that the
    optimizer received, `m` its momentum before the step, `d = w' - w`, and
    `u = g / (sqrt(v) + eps)` with Adam's bias-corrected second moment `v` after it.
    """

    WEIGHT_GRAD = 0  # sum of w * g
    GRAD_SQ = 1  # sum of g**2
    MOMENTUM_GRAD = 2  # sum of m * g
    MOMENTUM_SQ = 3  # sum of m**2
    GRAD_ABS = 4  # sum of |g|
    WEIGHT_SQ = 5  # sum of w**2
    WEIGHT_UPDATE = 6  # sum of w * d
    TURN_SQ = 7  # sum of t**2, where t is the part of d at right angles to w
    GRAD_UPDATE = 8  # sum of g * d
    MOVED = 9  # number of d != 0
    NONFINITE = 10  # number of NaN and infinite entries of g, m and w'
    WEIGHT_MAX = 11  # max of |w|: the one row that is a maximum, not a sum
    SCALED_GRAD_SQ = 12  # sum of u**2
    WEIGHT_SCALED_GRAD = 13  # sum of w * u
    OUTSIDE = 14  # number of |w| > limit, the half width of Lion's box
    AT_EDGE = 15  # number of |w| >= (1 - BOX_TOLERANCE) * limit


UNIT_SUMS: Final = (Sum.WEIGHT_SQ, Sum.WEIGHT_UPDATE, Sum.TURN_SQ)
"""The sums that describe how a weight turns, taken over each unit of a layer: its
output rows (neurons) where they are measured, else its pieces. `t` is taken per
unit; `dynoscope.metrics.turning.combine` makes a layer of its units."""

BOX_TOLERANCE: Final = 0.01
"""How near to the edge of the box, relative to it, a weight counts as there."""

CHANNEL_QUANTITIES: Final = ("gradient", "weight", "update")
"""What is kept, element by element, of a normalization layer's channels."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One watched parameter tensor.

    Attributes:
        name: qualified name without wrapper prefixes (`features.0.weight`).
        shape: shape of the parameter; a complex one has its real and imaginary parts
            in a last dimension.
        dtype: its dtype, as torch prints it without the `torch.` prefix.
        module: class name of the module that owns it.
        group: index of its parameter group in the optimizer.
        rows: output rows measured one by one (0: none).
        aliases: other names of the same tensor (tied weights).
        rotational: whether the optimizer turns it by an angle of its choice.
        lr_factor: its learning rate over that of its group, fixed by its shape.
        turn: where layers take turns, at which of them it is measured.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    module: str
    group: int
    rows: int
    aliases: tuple[str, ...] = ()
    rotational: bool = False
    lr_factor: float = 1.0
    turn: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Channels:
    """Bias of a normalization layer, or weight if it has none, channel by channel."""

    name: str  # the parameter's qualified name
    module: str  # class name of the normalization layer
    channels: int
    layer: int  # index of the parameter among the subject's layers


@dataclasses.dataclass(frozen=True)
class OptimizerInfo:
    """What is known of the optimizer.

    Attributes:
        name: its class name.
        kinds: per parameter group, which theory applies (`adamw`, `sgdm`, ...),
            or None where none does.
        reasons: per parameter group, why no theory applies ("" where one does).
        has_momentum: whether a momentum is measured.
        hyperparameters: per parameter group, what it was constructed with.
        has_second_moment: whether it scales gradients by a second moment, as measured.
        unread: why a momentum or second moment that it has is not measured, or "".
    """

    name: str
    kinds: tuple[str | None, ...]
    reasons: tuple[str, ...]
    has_momentum: bool
    hyperparameters: tuple[Mapping[str, Any], ...]
    has_second_moment: bool = False
    unread: str = ""

    @classmethod
    def joined(cls, optimizers: Sequence["OptimizerInfo"]) -> "OptimizerInfo":
        """Several optimizers as one: their groups follow each other."""
        if len(optimizers) == 1:
            return optimizers[0]
        names = {info.name: None for info in optimizers}
        counts = [sum(info.name == name for info in optimizers) for name in names]
        return cls(
            name=" + ".join(
                f"{count} x {name}" if count > 1 else name
                for name, count in zip(names, counts, strict=True)
            ),
            kinds=tuple(kind for info in optimizers for kind in info.kinds),
            reasons=tuple(reason for info in optimizers for reason in info.reasons),
            has_momentum=any(info.has_momentum for info in optimizers),
            hyperparameters=tuple(h for o in optimizers for h in o.hyperparameters),
            has_second_moment=any(info.has_second_moment for info in optimizers),
            unread="; ".join({o.unread: None for o in optimizers if o.unread}),
        )


class Part(NamedTuple):
    """What one of several optimizers moves.

    Attributes:
        subject: its layers alone, its parameter groups counted from 0.
        layers: where these layers stand among all.
        normalization: the same of its normalization layers.
        groups: where its parameter groups stand among all.
    """

    subject: "Subject"
    layers: npt.NDArray[np.intp]
    normalization: npt.NDArray[np.intp]
    groups: slice


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is being watched.

    Attributes:
        model: class name of the model.
        layers: the watched parameters, in the model's order.
        normalization: normalization layers.
        optimizer: what is known of it; of several, of all of them joined.
        unwatched: parameters of the model that are not measured, with the reason.
        optimizers: what is known of each, where there are several.
    """

    model: str
    layers: tuple[Layer, ...]
    normalization: tuple[Channels, ...]
    optimizer: OptimizerInfo
    unwatched: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optimizers: tuple[OptimizerInfo, ...] = ()

    def parts(self, turn: int | None = None) -> Iterator[Part]:
        """What each of the optimizers moves, in their order; of one turn alone."""
        group_of = np.array([layer.group for layer in self.layers])
        here = np.array([turn in (None, layer.turn) for layer in self.layers])
        others = {self.layers[i].name: "excluded" for i in np.flatnonzero(~here)}
        owners = np.array([norm.layer for norm in self.normalization], np.intp)
        start = 0
        for info in self.optimizers or (self.optimizer,):
            groups = slice(start, start + len(info.kinds))
            start = groups.stop
            mine = here & (group_of >= groups.start) & (group_of < groups.stop)
            layers, norms = np.flatnonzero(mine), np.flatnonzero(mine[owners])
            subject = dataclasses.replace(
                self,
                layers=tuple(
                    dataclasses.replace(layer, group=layer.group - groups.start)
                    for layer in (self.layers[i] for i in layers)
                ),
                normalization=tuple(
                    dataclasses.replace(norm, layer=int(np.sum(mine[: norm.layer])))
                    for norm in (self.normalization[i] for i in norms)
                ),
                optimizer=info,
                unwatched={**self.unwatched, **others},
                optimizers=(),
            )
            yield Part(subject, layers, norms, groups)


class GroupState(NamedTuple):
    """A parameter group's hyperparameters at one step (NaN: it has none).

    `lr` is dimensionless; `weight_decay` is as the optimizer takes it. SGD's
    momentum coefficient is `momentum`, the moment coefficients of Adam and Lion
    are `beta1` and `beta2`. `rotation` is the angle in radians by which a rotational
    optimizer turns the group's rotational layers. With `maximize` it goes along the
    gradient, not against it.
    """

    lr: float
    weight_decay: float
    beta1: float = np.nan
    beta2: float = np.nan
    momentum: float = np.nan
    dampening: float = 0.0
    nesterov: bool = False
    rotation: float = np.nan
    maximize: bool = False


class Host(NamedTuple):
    """A step's packed numbers on the host.

    Attributes:
        sums: shape (len(Sum), layers), float64.
        rows: shape (len(UNIT_SUMS), all rows of all layers), float64; layers follow
            each other in the subject's order.
        channels: shape (len(CHANNEL_QUANTITIES), channels of normalizations), float64.
        failed: of processes that share the model, those (by rank) whose shards are
            missing in the numbers, which then mean nothing.
    """

    sums: FloatArray
    rows: FloatArray
    channels: FloatArray
    failed: tuple[int, ...] = ()


class Measurement(NamedTuple):
    """One measured optimizer step, on its way to the recorder.

    Of several optimizers it is a round: each stepped once at most.

    Attributes:
        subject: what was watched at this step; parameters may come and go later.
        step: the update `step -> step + 1`, counted from 0.
        own_steps: per optimizer, the number of its own step, or None: it took none.
        wall_time: seconds since the epoch, when the step ended.
        groups: gives each parameter group's hyperparameters at this step.
        has_grad: per layer, whether it had a gradient.
        limits: per layer, 1 / weight_decay where that is decoupled, else inf.
        fetch: gives the numbers; waits for them, so only the writer thread calls it.
        nbytes: host memory held until then.
        hook_seconds: what the hooks cost the training thread at this step.
        device_seconds: what measuring took an accelerator, as known since the last one.
        skipped: measurements given up since the last one (queue full).
        turn: whose turn it was, where layers take turns: the others have no numbers.
        scalers: per optimizer, gives the scaler of its gradients, as `fetch` does, or
            None; empty if there is none at all.
        histograms: gives counts of shape (2, layers, bins), of weights before the step
            and of gradients, as `fetch` does; None where none were taken.
    """

    subject: Subject
    step: int
    own_steps: tuple[int | None, ...]
    wall_time: float
    groups: Callable[[], tuple[GroupState, ...]]
    has_grad: npt.NDArray[np.bool_]
    limits: FloatArray
    fetch: Callable[[], Host]
    nbytes: int
    hook_seconds: float
    device_seconds: float = 0.0
    skipped: int = 0
    turn: int = 0
    scalers: tuple[Callable[[], ScalerState] | None, ...] = ()
    histograms: Callable[[], npt.NDArray[np.int64]] | None = None


class Work(NamedTuple):
    """What has been done besides the training's thread, since a run began.

    Attributes:
        seconds: time that threads have spent on processors.
        taken: measurements that were turned into rows, or lost.
    """

    seconds: float
    taken: int


@dataclasses.dataclass(frozen=True)
class ScalarEntry:
    """One number logged by the user; `fetch` waits for it where it must."""

    step: int
    wall_time: float
    name: str
    fetch: Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of one table, measured on demand.

    Attributes:
        table: name of the table.
        columns: by name, an array of shape (rows,), or a value for all.
    """

    table: str
    columns: Mapping[str, Any]
