"""What an optimizer was told, as float64 arrays that are known to make sense.

The formulas of this room assume their arguments; the checks are here, once.
"""

from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dynoscope.errors import TheoryError

__all__ = ["Array", "Hyperparameters"]

Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The hyperparameters of a set of layers; every field broadcasts.

    Attributes:
        numel: number of weights in the group, C, at least 1.
        lr: learning rate of the step, eta, at least 0.
        weight_decay: weight decay, lambda, at least 0.
        betas: beta1 and beta2, each in [0, 1); None if not given.
        momentum: SGD's momentum, alpha, in [0, 1).
        dampening: SGD's dampening of the momentum, in [0, 1).
        nesterov: whether SGD's momentum is Nesterov's (bool).
        effective_grad_sq: E||g~||^2, the running mean of ||g||^2 ||w||^2, at
            least 0, or NaN where it is unknown; None if not given.
    """

    numel: Array
    lr: Array
    weight_decay: Array
    betas: tuple[Array, Array] | None
    momentum: Array
    dampening: Array
    nesterov: NDArray[np.bool_]
    effective_grad_sq: Array | None

    @classmethod
    def checked(
        cls,
        *,
        numel: ArrayLike,
        lr: ArrayLike,
        weight_decay: ArrayLike,
        betas: tuple[ArrayLike, ArrayLike] | None = None,
        momentum: ArrayLike | None = None,
        dampening: ArrayLike = 0.0,
        nesterov: ArrayLike = False,
        effective_grad_sq: ArrayLike | None = None,
    ) -> Self:
        """Convert to arrays and refuse what no formula here is meant for.

        Raises:
            TheoryError: a value is out of range, or shapes do not broadcast.
        """
        checked = cls(
            numel=_at_least("numel", numel, 1, "give the number of weights"),
            lr=_at_least("lr", lr, 0, "give the step's learning rate"),
            weight_decay=_at_least("weight_decay", weight_decay, 0, "use 0 for none"),
            betas=None if betas is None else _pair(betas),
            momentum=_coefficient("momentum", 0.0 if momentum is None else momentum),
            dampening=_coefficient("dampening", dampening),
            nesterov=np.asarray(nesterov, dtype=np.bool_),
            effective_grad_sq=_mean_square(effective_grad_sq),
        )
        checked._require_contraction()
        return checked

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all fields broadcast to."""
        fields = (
            self.numel,
            self.lr,
            self.weight_decay,
            *(self.betas or ()),
            self.momentum,
            self.dampening,
            self.nesterov,
            *(() if self.effective_grad_sq is None else (self.effective_grad_sq,)),
        )
        try:
            return np.broadcast_shapes(*(field.shape for field in fields))
        except ValueError:
            shapes = ", ".join(sorted({str(field.shape) for field in fields}))
            raise TheoryError(
                f"shapes {shapes} do not broadcast; give scalars or one value a layer"
            ) from None

    def require_betas(self, optimizer: str) -> tuple[Array, Array]:
        """Return beta1 and beta2, or say that `optimizer` cannot do without."""
        if self.betas is None:
            raise TheoryError(f"'{optimizer}' needs betas=(beta1, beta2)")
        return self.betas

    def require_effective_grad_sq(self, optimizer: str) -> Array:
        """Return E||g~||^2, or say that `optimizer` cannot do without."""
        if self.effective_grad_sq is None:
            raise TheoryError(
                f"'{optimizer}' needs effective_grad_sq, the running mean of "
                "||g||^2 * ||w||^2: its equilibrium depends on the gradient's size"
            )
        return self.effective_grad_sq

    def _require_contraction(self) -> None:
        shape = self.shape
        lr, weight_decay = np.broadcast_arrays(self.lr, self.weight_decay)
        if shape and lr.size == 0:
            return
        worst = np.argmax(lr * weight_decay)
        if (lr * weight_decay).flat[worst] >= 1:
            raise TheoryError(
                f"lr * weight_decay must be below 1, got {lr.flat[worst]:g} * "
                f"{weight_decay.flat[worst]:g}: a step would erase the weight; "
                "lower either"
            )


def _pair(betas: tuple[ArrayLike, ArrayLike]) -> tuple[Array, Array]:
    try:
        beta1, beta2 = betas
    except (TypeError, ValueError):
        raise TheoryError(f"betas must be (beta1, beta2), got {betas!r}") from None
    return _coefficient("beta1", beta1), _coefficient("beta2", beta2)


def _at_least(name: str, value: ArrayLike, least: int, cure: str) -> Array:
    array = _float64(name, value)
    _require(
        name, array, np.isfinite(array) & (array >= least), f"be >= {least}; {cure}"
    )
    return array


def _coefficient(name: str, value: ArrayLike) -> Array:
    array = _float64(name, value)
    cure = "lie in [0, 1); it is a coefficient of an average, such as .9"
    _require(name, array, (array >= 0) & (array < 1), cure)
    return array


def _mean_square(value: ArrayLike | None) -> Array | None:
    if value is None:
        return None
    array = _float64("effective_grad_sq", value)
    cure = "be >= 0, or NaN where it is unknown; it is a mean of squares"
    _require("effective_grad_sq", array, ~(array < 0) & ~np.isinf(array), cure)
    return array


def _float64(name: str, value: ArrayLike) -> Array:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TheoryError(f"{name} must be numbers, got {value!r}") from None


def _require(name: str, array: Array, good: NDArray[np.bool_], cure: str) -> None:
    if not good.all():
        raise TheoryError(f"{name} is {array[~good].flat[0]:g} but must {cure}")
