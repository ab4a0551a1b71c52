"""Rotational: any optimizer, its weights turned by the angle of equilibrium."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from dynoscope.optim import _equilibrium
from dynoscope.optim._equilibrium import is_free_of_weight, turns_like
from dynoscope.optim._rotation import STATE, Turn, Turning, turn_all
from dynoscope.optim._turned_blocks import (
    Blocks,
    Per,
    center_,
    check_options,
    factor_column,
    is_zero,
)

__all__ = ["Rotational"]

Group = Mapping[str, Any]

_OPTIONS: Final = (
    "rotational",
    "rotation_per",
    "rotation_center",
    "rotation_beta",
    "eta_r",
)


class Rotational(Optimizer):
    """Rotational variant of an optimizer: every block turns by eta_r on average.

    A block is a neuron's row of weights p, or a whole tensor. With the inner
    optimizer's update D (without weight decay), divided by lr, and n the norm of
    the block at its first step:

        D <- D - mean(D)                            (if centred)
        D <- D - <D, p> / ||p||^2 * p
        v <- rotation_beta * v + (1 - rotation_beta) * ||D||^2
        p <- p + eta_r * n * D / sqrt(v / (1 - rotation_beta^t))
        p <- n * p / ||p||

    So the norm of a block stays what it was, and it turns from the first step on as
    it otherwise would in the long run, whatever its gradient's size or its
    component along the weight. eta_r follows lr and weight_decay at every step, by
    the equilibrium of the inner optimizer: a schedule of lr enters as its root.

    >>> import torch
    >>> from dynoscope.optim import Rotational
    >>> layer = torch.nn.Linear(64, 10)
    >>> inner = torch.optim.AdamW(layer.parameters(), lr=1e-3, weight_decay=0.1)
    >>> optimizer = Rotational(inner)
    >>> round(optimizer.rotation(optimizer.param_groups[0]), 5)
    0.00324

    What is rotational: tensors of two and more dimensions in groups whose
    weight_decay is above 0. ``rotational=False`` in a group keeps all of it out, True
    takes its vectors in too, each a single row. Blocks too small to turn stay out,
    and all that is out gets the inner optimizer's own step. A block of zeros has no
    direction: it moves by the inner update and its decay, and is never turned.

    Centring subtracts every block's mean once, here in the constructor, and then
    from every update; the norm stays. That is a change of the weights, which a
    network without normalization will notice: ``center=False`` leaves them alone.

    Units: eta_r in radians per step; n in the weight's unit. weight_decay no longer
    shrinks a rotational weight, it only sets eta_r with lr. Coming from the inner
    optimizer: keep all hyperparameters. Where the norm of a layer matters, let it
    learn a gain (`dynoscope.optim.add_gain`).

    State, hyperparameters and schedulers are the inner optimizer's: ``state`` and
    ``param_groups`` are the same objects. Step and save this optimizer, not the inner
    one. While the inner optimizer steps, weights that turn read 0, which hooks of
    its own would see. The extra memory is a copy of these weights during the step.

    Args:
        inner: the optimizer to take directions from: AdamW, SGD (with any momentum,
            dampening, Nesterov), Lion, SepNorm, or Adam with L2, whose directions
            turn by AdamW's eta_r; any other with `eta_r` given.
        per: what a block is. "row": the weights of one output (of the first
            dimension: for a transposed convolution choose "tensor"); "tensor".
        center: whether rows are centred.
        beta: rotation_beta, of the running mean of the update's size, in [0, 1); 0
            turns every block by exactly eta_r in every step.
        eta_r: angle per step in radians instead of the equilibrium's, at least 0; or
            a function that makes it of a parameter group.
        factor: a function from a parameter to a factor of its eta_r: a number, or a
            tensor with one number a row.

    A group may have keys of its own: ``rotational`` (None, True, False),
    ``rotation_per``, ``rotation_center``, ``rotation_beta``, ``eta_r`` (a number).

    Raises:
        TypeError: inner is no optimizer.
        ValueError: an option is out of range, the equilibrium of the inner
            optimizer is unknown and no `eta_r` is given, or a group should turn
            that has no weight decay to turn it.

    Source: Kosson et al. 2024, "Rotational Equilibrium", algorithm 1 and appendix
    M; no epsilon under the root, which would stop the rotation where gradients are
    small, and no centring inside the step, which would jump.
    """

    def __init__(
        self,
        inner: Optimizer,
        *,
        per: Per = "row",
        center: bool = True,
        beta: float = 0.99,
        eta_r: float | Callable[[Group], float] | None = None,
        factor: Callable[[Tensor], float | Tensor] | None = None,
    ) -> None:
        if not isinstance(inner, Optimizer) or isinstance(inner, Rotational):
            raise TypeError(
                "Rotational wraps a torch.optim.Optimizer that is not rotational "
                f"itself, got {type(inner).__name__}; give it one, with its parameters"
            )
        self.inner = inner
        self.factor = factor
        self._angle_of = eta_r if callable(eta_r) else None
        options = (
            None,
            per,
            center,
            beta,
            None if callable(eta_r) else eta_r,
        )
        defaults = {**inner.defaults, **dict(zip(_OPTIONS, options, strict=True))}
        super().__init__(inner.param_groups, defaults)
        self._share()

    def _share(self) -> None:
        """Be one with the inner optimizer: the same state and groups."""
        self.state, self.param_groups = self.inner.state, self.inner.param_groups

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle needs; state and groups are the inner one's."""
        names = ("inner", "factor", "_angle_of", "defaults")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy, or what `load_state_dict` read."""
        if "inner" in state:
            super().__setstate__(state)
        else:
            self.inner.__setstate__(state)
        self._share()
        for group in self.param_groups:
            for key in _OPTIONS:
                group.setdefault(key, self.defaults[key])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, of this class or of the inner optimizer's.

        Raises:
            ValueError: the groups do not fit.
        """
        super().load_state_dict(state_dict)
        # torch gives every state the parameter's dtype; ours are wider than that
        saved = [key for group in state_dict["param_groups"] for key in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        for key, param in zip(saved, params, strict=True):
            for name in STATE:
                if name in state_dict["state"].get(key, {}):
                    value = state_dict["state"][key][name]
                    self.state[param][name] = value.to(param.device, copy=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; centre those that turn."""
        if "inner" in vars(self) and self.param_groups is self.inner.param_groups:
            self.inner.add_param_group(param_group)
            for key in _OPTIONS:
                param_group.setdefault(key, self.defaults[key])
        else:
            super().add_param_group(param_group)
        try:
            self._check_group(param_group)
        except ValueError:
            self.param_groups.pop()
            raise
        for param in param_group["params"]:
            per, center = param_group["rotation_per"], param_group["rotation_center"]
            if center and self.is_rotational(param, param_group):
                with torch.no_grad():
                    center_(param, per)

    def is_rotational(self, param: Tensor, group: Group) -> bool:
        """Whether a parameter of a group is turned."""
        wanted = group["rotational"]
        if wanted is False or not Blocks.of(param, group["rotation_per"]).can_turn:
            return False
        turns = group["weight_decay"] > 0 or self._has_angle(group)
        return bool(wanted) or (param.ndim > 1 and turns)

    def rotation(self, group: Group) -> float:
        """The angle eta_r by which a group's blocks turn in a step, in radians.

        Raises:
            ValueError: the angle is negative or not finite.
        """
        angle = group["eta_r"]
        if angle is None:
            angle = (self._angle_of or self._equilibrium_angle)(group)
        if not 0 <= angle < math.inf:
            raise ValueError(
                f"eta_r must be finite and >= 0, got {angle}; it is an angle in radians"
            )
        return float(angle)

    def _equilibrium_angle(self, group: Group) -> float:
        kind = turns_like(self.inner, group)
        return math.nan if kind is None else _equilibrium.angle(kind, group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step: the inner optimizer's, turned.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            The closure's loss, None without a closure.

        Raises:
            RuntimeError: a gradient is sparse.
            ValueError: an angle that `eta_r` gave makes no sense; nothing moved.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        turns = self._plan()
        shards = [turn.blocks.shard(param) for param, turn in turns]
        held = [shard.clone() for shard in shards]
        try:
            for shard, (_, turn) in zip(shards, turns, strict=True):
                if turn.from_zero:
                    shard.zero_()
            self.inner.step()
        except BaseException:
            for shard, before in zip(shards, held, strict=True):
                shard.copy_(before)
            raise
        self._turn(turns, shards, held)
        return loss

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _plan(self) -> list[tuple[Tensor, Turn]]:
        """What turns in this step; no tensor is touched, so a graph may wait for it."""
        return [pair for group in self.param_groups for pair in self._turns(group)]

    def _turns(self, group: Group) -> Iterator[tuple[Tensor, Turn]]:
        """The parameters of a group that turn in this step, and how."""
        params = [
            param
            for param in group["params"]
            if param.grad is not None and self.is_rotational(param, group)
        ]
        if not params:
            return
        lr, angle = float(group["lr"]), self.rotation(group)
        from_zero = is_free_of_weight(self.inner, group)
        for param in params:
            if param.grad.is_sparse:
                raise RuntimeError(
                    "Rotational cannot use the sparse gradient of the parameter of "
                    f"shape {tuple(param.shape)}; make the gradient dense "
                    "(nn.Embedding: sparse=False), or set rotational=False in its group"
                )
            blocks = Blocks.of(param, group["rotation_per"])
            yield (
                param,
                Turn(
                    blocks,
                    center=group["rotation_center"] and blocks.can_center,
                    beta=group["rotation_beta"],
                    angle=angle * factor_column(self.factor, param, blocks),
                    lr=lr,
                    keep=1 - lr * group["weight_decay"],
                    from_zero=from_zero,
                ),
            )

    def _turn(
        self,
        turns: list[tuple[Tensor, Turn]],
        shards: list[Tensor],
        held: list[Tensor],
    ) -> None:
        turnings = []
        for (param, turn), shard, before in zip(turns, shards, held, strict=True):
            if not turn.from_zero:
                shard.sub_(before)
            turnings.append(Turning(shard, before, turn, self.state[param]))
        turn_all(turnings)

    def _check_group(self, group: Group) -> None:
        check_options(group["rotation_per"], group["rotation_beta"])
        if group["eta_r"] is not None:
            self.rotation(group)
        turning = [p for p in group["params"] if self.is_rotational(p, group)]
        if turning:
            self._check_turning(group, turning)

    def _check_turning(self, group: Group, turning: list[Tensor]) -> None:
        inner = type(self.inner).__name__
        if not self._has_angle(group) and turns_like(self.inner, group) is None:
            raise ValueError(
                f"the rotational equilibrium of {inner} with these options is unknown; "
                "give eta_r, in radians per step, or rotational=False in the group"
            )
        if not self._has_angle(group) and group["weight_decay"] == 0:
            raise ValueError(
                "rotational=True without weight decay: in equilibrium nothing would "
                "turn; set weight_decay > 0, or give eta_r"
            )
        half = [p for p in turning if torch.finfo(p.dtype).bits < 32]
        if half and not is_free_of_weight(self.inner, group):
            raise ValueError(
                f"the update of {inner} has to be read off the weights, for which "
                f"those of {half[0].dtype} have too few digits; use float32 weights"
            )
        for param in turning:
            if is_zero(param):
                warnings.warn(
                    f"a weight of shape {tuple(param.shape)} is all zeros: it has no "
                    f"direction to turn and will move as by {inner}; give it a start, "
                    "or rotational=False in its group",
                    stacklevel=4,
                )

    def _has_angle(self, group: Group) -> bool:
        return group["eta_r"] is not None or self._angle_of is not None
