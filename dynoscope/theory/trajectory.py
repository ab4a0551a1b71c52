"""Weight norm and rotation along a schedule, from the norm at the start.

An equilibrium tells where a layer would settle if the learning rate stayed as it is;
under warmup and cosine it does not stay. Here the moments of
`dynoscope.theory.moments` are carried along, step by step.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dynoscope.errors import TheoryError
from dynoscope.theory import autocorrelation, moments
from dynoscope.theory.equilibrium import DECOUPLED
from dynoscope.theory.hyperparameters import Array, Hyperparameters
from dynoscope.theory.moments import Law, Moments, Setting, Settled

__all__ = ["Integrator", "Trajectory", "trajectory"]


class Trajectory(NamedTuple):
    """Row t describes the step t -> t + 1; float64 arrays, one shape.

    Attributes:
        weight_norm: root expected square of the norm before the step, in the
            weight's unit.
        angular_update: angle between the weight before and after the step, in
            radians.
    """

    weight_norm: Array
    angular_update: Array


def trajectory(
    optimizer: str,
    *,
    numel: ArrayLike,
    start_weight_norm: ArrayLike,
    lr: ArrayLike,
    weight_decay: ArrayLike,
    betas: tuple[ArrayLike, ArrayLike] | None = None,
    momentum: ArrayLike | None = None,
    dampening: ArrayLike = 0.0,
    nesterov: ArrayLike = False,
    effective_grad_sq: ArrayLike | None = None,
) -> Trajectory:
    """Predict scale-invariant weights along a schedule, from the first step on.

    >>> warmup = np.minimum(np.arange(1, 1001) / 200, 1)
    >>> found = trajectory(
    ...     "adamw",
    ...     numel=64,
    ...     start_weight_norm=1.0,
    ...     lr=1e-2 * warmup,
    ...     weight_decay=0.5,
    ...     betas=(0.9, 0.99),
    ... )
    >>> found.weight_norm[[0, 200, 999]].round(2)
    array([1.  , 0.82, 0.78])

    A series is of shape (steps,) or (steps, layers); one row stands for all steps.

    Args:
        optimizer: as `dynoscope.theory.equilibrium` takes it.
        numel: number of weights, C; a number or of shape (layers,).
        start_weight_norm: norm before the first step, positive, in the weight's
            unit; a number or of shape (layers,).
        lr: learning rate, eta, per step; a number or a series.
        weight_decay: weight decay, lambda; a number or a series.
        betas: beta1 and beta2, numbers or series.
        momentum: SGD's momentum, a number or a series; 0 if not given.
        dampening: SGD's dampening, a number or a series.
        nesterov: whether SGD's momentum is Nesterov's.
        effective_grad_sq: ||g||^2 ||w||^2, measured or its mean, a number or a
            series; where it is NaN the last known holds. Needed by "sgdm", "adam_l2"
            and "normgd", whose layers share one step; others take it as constant.

    Returns:
        The prediction, of shape (steps,), or (steps, layers) where an argument has
        layers; NaN as long as effective_grad_sq has only been NaN or 0.

    Raises:
        TheoryError: no argument is a series, or one that `equilibrium` refuses.

    Source: `dynoscope.theory.moments`; no paper has it. Mean error of the norm over
    warmup and cosine in a random walk, with lr * weight_decay up to 5e-3, where the
    equilibrium at each step's lr is off by a quarter: "adamw" .5 %, "lion" 2.5 %,
    "sepnorm" 4 %, "ortsepnorm" none, "adam_l2" .5 % with an even second moment and 11
    % without. With effective_grad_sq as measured at each step "sgdm", "sepnorm" and
    "normgd" .5 %, "lion" .8 %; with its mean, "sgdm" 3 to 6 %. The angle's is at most
    1.5 percentage points more.
    """
    given: dict[str, ArrayLike | None] = {
        "lr": lr,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "dampening": dampening,
        "nesterov": nesterov,
        "effective_grad_sq": effective_grad_sq,
    }
    columns: dict[str, Any] = {name: _column(name, v) for name, v in given.items()}
    if betas is not None:
        columns["betas"] = tuple(_column("betas", beta) for beta in betas)
    hyper = Hyperparameters.checked(numel=numel, **columns)
    start = _positive(start_weight_norm)
    shape = _shape(hyper, start)
    found = Integrator(optimizer).advance(hyper, np.broadcast_to(start, shape))
    layers = max(np.ndim(numel), start.ndim) or any(
        np.ndim(value) > 1
        for value in (*given.values(), *(betas or ()))
        if value is not None
    )
    return found if layers else Trajectory(*(column[:, 0] for column in found))


class Integrator:
    """Carries layers along, a batch of steps at a time, as they are measured.

    Between two measured steps the setting and the gradients of the earlier one hold.

    Args:
        optimizer: as `dynoscope.theory.equilibrium` takes it.
        settled: whether the optimizer has been at work before the first step, so
            that its momentum is not 0.

    Raises:
        TheoryError: an unknown optimizer.
    """

    def __init__(self, optimizer: str, *, settled: bool = False) -> None:
        if optimizer not in _LAWS:
            known = ", ".join(f"'{name}'" for name in _LAWS)
            raise TheoryError(
                f"no theory for optimizer {optimizer!r}; known are {known}"
            )
        self._optimizer, self._settled = optimizer, settled
        self._law, self._start = _LAWS[optimizer]
        self._moments = Moments(*np.full(len(Moments._fields), np.nan))
        self._grad_sq = np.full((), np.nan)
        self._setting: Setting | None = None
        self._next = 0

    def advance(
        self,
        hyper: Hyperparameters,
        weight_norm: Array,
        steps: Sequence[int] | None = None,
    ) -> Trajectory:
        """Predict the next measured steps.

        Args:
            hyper: each field but numel a number or of shape (steps or 1, layers or
                1); numel of shape (layers,) or a number.
            weight_norm: norm measured before each step, shape (steps, layers). A
                layer starts from the first one that is positive, once its
                effective_grad_sq is.
            steps: their numbers, increasing; where not given, the next ones.

        Returns:
            The prediction, shape (steps, layers); NaN before a layer's start.

        Raises:
            TheoryError: the optimizer needs what is not given.
        """
        setting = _setting(self._optimizer, hyper)
        grad_sq = _effective_grad_sq(self._optimizer, hyper, weight_norm.shape[1])
        known = not np.isnan(grad_sq).any()
        found = Trajectory(*np.full((2, *weight_norm.shape), np.nan))
        numbers = itertools.count(self._next) if steps is None else steps
        settings = map(Setting._make, zip(*map(_by_step, setting), strict=False))
        given = zip(weight_norm, numbers, _by_step(grad_sq), settings, strict=False)
        with np.errstate(invalid="ignore", over="ignore"):
            for row, (norm, step, now, told) in enumerate(given):
                if self._setting is not None:
                    for _ in range(self._next, step):  # steps that nobody measured
                        self._take(self._setting)
                self._grad_sq = (
                    now if known else np.where(np.isnan(now), self._grad_sq, now)
                )
                self._setting = told
                self._begin(norm, told)
                found.weight_norm[row] = self._moments.weight_sq
                found.angular_update[row] = self._take(told)
                self._next = step + 1
            return found._replace(weight_norm=np.sqrt(found.weight_norm))

    def _begin(self, norm: Array, setting: Setting) -> None:
        """Start the layers that can start now and have not."""
        waiting = np.isnan(self._moments.weight_sq)
        if not np.count_nonzero(waiting):  # asked at every step: `any` takes longer
            return
        ready = waiting & (norm > 0) & np.isfinite(norm) & (self._grad_sq > 0)
        if not ready.any():
            return
        weight_sq, none = np.where(ready, norm, np.nan) ** 2, np.zeros(())
        new = Moments(weight_sq, none, none, none, none)
        if self._settled:
            new = self._start(weight_sq, setting, self._grad_sq)
        self._moments = Moments(
            *(np.where(ready, *pair) for pair in zip(new, self._moments, strict=True))
        )

    def _take(self, setting: Setting) -> Array:
        """Take a step; its angle."""
        self._moments, angle = self._law(self._moments, setting, self._grad_sq)
        return angle


def _setting(optimizer: str, hyper: Hyperparameters) -> Setting:
    """What the recursions need, each entry as the field it is made of."""
    decoupled, none, one = optimizer in DECOUPLED, np.zeros(()), np.ones(())
    if optimizer == "sgdm":
        beta1, beta2 = hyper.momentum, none
    elif optimizer == "ortsepnorm":
        beta1 = beta2 = none
    else:
        beta1, beta2 = hyper.require_betas(optimizer)
    return Setting(
        numel=hyper.numel,
        lr=hyper.lr,
        decay=hyper.lr * hyper.weight_decay if decoupled else none,
        l2=none if decoupled else hyper.weight_decay,
        beta1=beta1,
        beta2=beta2,
        dampening=hyper.dampening,
        nesterov=hyper.nesterov.astype(np.float64),
        gain=_sign_gain(beta1, beta2) if optimizer == "lion" else one,
    )


def _sign_gain(beta1: Array, beta2: Array) -> Array:
    """How much of the interpolated momentum's memory its sign keeps."""
    beta1, beta2 = (
        beta[:1] if beta.ndim and (beta == beta[:1]).all() else beta
        for beta in (beta1, beta2)
    )
    one = np.ones(())
    of_sign = autocorrelation.sign_sum(beta1, beta2, one) - 1
    of_itself = autocorrelation.interpolated_sum(beta1, beta2, one) - 1
    with np.errstate(invalid="ignore"):
        return np.where(of_itself > 0, of_sign / of_itself, 2 / math.pi)


def _effective_grad_sq(optimizer: str, hyper: Hyperparameters, layers: int) -> Array:
    if optimizer in ("sgdm", "adam_l2") or (optimizer == "normgd" and layers > 1):
        return hyper.require_effective_grad_sq(optimizer)
    # the scale of the gradients cancels
    known = hyper.effective_grad_sq
    return np.ones(()) if known is None else known


def _by_step(series: Array) -> Iterable[Array]:
    """What a series is at each step; for ever, if it is of no step or of one.

    One value for all layers comes as a number: with those numpy is quicker by far than
    with arrays of one element.
    """
    if series.ndim < 2:
        return itertools.repeat(series[()])
    if series.shape[1] == 1:
        series = series[:, 0]
    return series if len(series) > 1 else itertools.repeat(series[0])


def _column(name: str, value: ArrayLike | None) -> ArrayLike | None:
    """A series of shape (steps,) as one of shape (steps, 1)."""
    dimensions = np.ndim(value) if value is not None else 0
    if dimensions > 2:
        raise TheoryError(
            f"{name} has {dimensions} dimensions; a series is of shape (steps,) or "
            "(steps, layers)"
        )
    return np.asarray(value)[:, np.newaxis] if dimensions == 1 else value


def _positive(start_weight_norm: ArrayLike) -> Array:
    start = np.asarray(start_weight_norm, dtype=np.float64)
    bad = ~((start > 0) & np.isfinite(start))
    if bad.any():
        raise TheoryError(
            f"start_weight_norm is {start[bad].flat[0]:g} but must be positive and "
            "finite; a weight of 0 has no direction"
        )
    return start


def _shape(hyper: Hyperparameters, start: Array) -> tuple[int, int]:
    """Steps and layers."""
    if len(hyper.shape) != 2:
        raise TheoryError(
            "no argument is a series; give lr as one learning rate a step"
        )
    try:
        steps, layers = np.broadcast_shapes(hyper.shape, (1, *start.shape))
    except ValueError:
        raise TheoryError(
            f"start_weight_norm of shape {start.shape} does not broadcast to "
            f"{hyper.shape[1]} layers; give a number or one value a layer"
        ) from None
    return steps, layers


_LAWS: Final[Mapping[str, tuple[Law, Settled]]] = {
    "adam_l2": (moments.adam, moments.adam_settled),
    "adamw": (moments.adamw, moments.adam_settled),
    "lion": (moments.interpolated, moments.interpolated_settled),
    "normgd": (moments.normgd, moments.normgd_settled),
    "ortsepnorm": (moments.orthogonal, moments.interpolated_settled),
    "sepnorm": (moments.interpolated, moments.interpolated_settled),
    "sgdm": (moments.sgdm, moments.sgdm_settled),
}
