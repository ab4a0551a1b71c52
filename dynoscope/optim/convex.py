"""Convex functions K for Lion-K: each brings the constraint that it enforces.

Lion-K descends along the gradient of K and thereby minimises ``f(w) + K*(c * w) / c``
with c the weight decay and K* the convex conjugate, which is infinite outside of its
domain: weight decay and K together keep ``c * w`` in that domain, where `gauge` is
at most 1. Whatever K is given counts as one vector, of any shape.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

__all__ = ["L1", "ConvexFunction", "Gradient", "Huber", "Lp", "Threshold", "TopK"]


class Gradient(Protocol):
    """What Lion-K needs of a K, one of your own included.

    Give it ``separable = True`` if K is a sum of functions of one coordinate each, so
    that a part of x yields that part of the gradient: then no sharded tensor is
    gathered for it. Without the attribute x is always whole.
    """

    def grad(self, x: Tensor) -> Tensor:
        """A (sub)gradient of K at x, in x's shape and dtype."""


class ConvexFunction(ABC):
    """A K with its conjugate and its constraint; all values are 0-d tensors."""

    separable: ClassVar[bool] = False
    """Whether K is a sum of functions of one coordinate each."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """K(x)."""

    @abstractmethod
    def grad(self, x: Tensor) -> Tensor:
        """A (sub)gradient of K at x, in x's shape and dtype."""

    @abstractmethod
    def gauge(self, y: Tensor) -> Tensor:
        """Size of y, a norm: K enforces ``gauge(weight_decay * w) <= 1``."""

    @abstractmethod
    def penalty(self, y: Tensor) -> Tensor:
        """K*(y) where the constraint holds: what K adds to the loss besides it."""

    @property
    @abstractmethod
    def constraint(self) -> str:
        """The constraint in words, of y = weight_decay * w."""

    def conjugate(self, y: Tensor) -> Tensor:
        """K*(y) = sup over x of <x, y> - K(x); infinite where the gauge exceeds 1.

        The gauge may exceed 1 by what rounding does to it.
        """
        margin = torch.finfo(y.dtype).eps * (16 + math.sqrt(y.numel()))
        return torch.where(self.gauge(y) <= 1 + margin, self.penalty(y), math.inf)


@dataclass(frozen=True)
class L1(ConvexFunction):
    """K(x) = ||x||_1, which makes Lion-K Lion.

    Source: Chen et al. 2024 (Lion-K), Table 2, line 1.
    """

    constraint = "||y||_inf <= 1"
    separable = True

    def value(self, x: Tensor) -> Tensor:
        """K(x)."""
        return x.abs().sum()

    def grad(self, x: Tensor) -> Tensor:
        """sign(x)."""
        return x.sign()

    def gauge(self, y: Tensor) -> Tensor:
        """||y||_inf."""
        return _largest(y)

    def penalty(self, y: Tensor) -> Tensor:
        """0."""
        return y.new_zeros(())


@dataclass(frozen=True)
class Lp(ConvexFunction):
    """K(x) = ||x||_p: from Lion (p = 1) to NormGD (p = 2) and beyond.

    Args:
        p: order of the norm, finite and at least 1, dimensionless.

    Source: Chen et al. 2024 (Lion-K), Table 2, line 2.
    """

    p: float

    def __post_init__(self) -> None:
        """Refuse a p that makes no norm."""
        if not 1 <= self.p < math.inf:
            raise ValueError(
                f"p must be finite and >= 1, got {self.p}; below 1 ||x||_p is not "
                "convex and constrains nothing (p = 1 is Lion, p = 2 NormGD)"
            )

    @property
    def q(self) -> float:
        """The dual order, 1/p + 1/q = 1."""
        return math.inf if self.p == 1 else self.p / (self.p - 1)

    @property
    def constraint(self) -> str:
        """The constraint in words, of y = weight_decay * w."""
        return f"||y||_{self.q:g} <= 1"

    def value(self, x: Tensor) -> Tensor:
        """K(x)."""
        return _norm(x, self.p)

    def grad(self, x: Tensor) -> Tensor:
        """sign(x) |x|^(p-1) / ||x||_p^(p-1), 0 at 0."""
        wide = x.float() if torch.finfo(x.dtype).bits < 32 else x
        # relative to the largest, no power overflows and the norm is at least 1
        share = wide / _positive(_largest(wide))
        share = share / _positive(_norm(share, self.p))
        return (share.sign() * share.abs() ** (self.p - 1)).to(x.dtype)

    def gauge(self, y: Tensor) -> Tensor:
        """||y||_q."""
        return _norm(y, self.q)

    def penalty(self, y: Tensor) -> Tensor:
        """0."""
        return y.new_zeros(())


@dataclass(frozen=True)
class Threshold(ConvexFunction):
    """K(x) = sum of max(|x| - e, 0): coordinates of small momentum stay, and shrink.

    Args:
        e: threshold, at least 0, in the gradient's unit. It adds e * ||w||_1 to the
            loss, whatever the weight decay.

    Source: Chen et al. 2024 (Lion-K), Table 2, line 3.
    """

    e: float
    constraint = "||y||_inf <= 1"
    separable = True

    def __post_init__(self) -> None:
        """Refuse an e that makes no threshold."""
        if not 0 <= self.e < math.inf:
            raise ValueError(
                f"e must be finite and >= 0, got {self.e}; it is the |momentum| up "
                "to which a weight only decays"
            )

    def value(self, x: Tensor) -> Tensor:
        """K(x)."""
        return (x.abs() - self.e).clamp(min=0).sum()

    def grad(self, x: Tensor) -> Tensor:
        """sign(x) where |x| > e, else 0."""
        return x.sign() * (x.abs() > self.e)

    def gauge(self, y: Tensor) -> Tensor:
        """||y||_inf."""
        return _largest(y)

    def penalty(self, y: Tensor) -> Tensor:
        """||y||_1, times e."""
        return self.e * y.abs().sum()


@dataclass(frozen=True)
class TopK(ConvexFunction):
    """K(x) = sum of the k largest |x|: only k coordinates move, the rest shrink.

    Among equal |x| it takes exactly as many as complete k, which keeps the update a
    subgradient; all of them would not.

    Args:
        k: how many, at least 1 and at most the number of coordinates.

    Source: Chen et al. 2024 (Lion-K), Table 2, line 4, with |x| >= |x_(k)|.
    """

    k: int

    def __post_init__(self) -> None:
        """Refuse a k that counts nothing."""
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(
                f"k must be a whole number >= 1, got {self.k}; it counts the "
                "coordinates that move in a step"
            )

    @property
    def constraint(self) -> str:
        """The constraint in words, of y = weight_decay * w."""
        return f"||y||_1 <= {self.k} and ||y||_inf <= 1"

    def value(self, x: Tensor) -> Tensor:
        """K(x)."""
        return x.abs().reshape(-1)[self._top(x)].sum()

    def grad(self, x: Tensor) -> Tensor:
        """sign(x) at the k largest |x|, else 0."""
        flat, top = x.reshape(-1), self._top(x)
        return torch.zeros_like(flat).index_copy(0, top, flat[top].sign()).view_as(x)

    def gauge(self, y: Tensor) -> Tensor:
        """The larger of ||y||_1 / k and ||y||_inf."""
        return torch.maximum(y.abs().sum() / self.k, _largest(y))

    def penalty(self, y: Tensor) -> Tensor:
        """0."""
        return y.new_zeros(())

    def check(self, numel: int) -> None:
        """Refuse a number of coordinates of which there are no k largest."""
        if self.k > numel:
            raise ValueError(
                f"k = {self.k} exceeds the {numel} coordinates that K is given; take "
                'a smaller k, leave small tensors to another optimizer, or per="model"'
            )

    def _top(self, x: Tensor) -> Tensor:
        self.check(x.numel())
        return x.abs().reshape(-1).topk(self.k, sorted=False).indices


@dataclass(frozen=True)
class Huber(ConvexFunction):
    """K(x) = sum of huber_e(x): a sign that is linear within e of 0.

    Args:
        e: width of the linear part, positive, in the gradient's unit. It adds
            (e * weight_decay / 2) * ||w||^2 to the loss.

    Source: Chen et al. 2024 (Lion-K), Table 2, line 5, with ||y||_inf <= 1.
    """

    e: float
    constraint = "||y||_inf <= 1"
    separable = True

    def __post_init__(self) -> None:
        """Refuse an e that has no inverse."""
        if not 0 < self.e < math.inf:
            raise ValueError(
                f"e must be positive and finite, got {self.e}; it is the |momentum| "
                "from which a weight moves by lr (for e = 0 take L1)"
            )

    def value(self, x: Tensor) -> Tensor:
        """K(x)."""
        size = x.abs()
        near = size.clamp(max=self.e)
        return (near * (near / self.e) / 2 + (size - near)).sum()

    def grad(self, x: Tensor) -> Tensor:
        """clip(x, -e, e) / e."""
        return x.clamp(-self.e, self.e) / self.e

    def gauge(self, y: Tensor) -> Tensor:
        """||y||_inf."""
        return _largest(y)

    def penalty(self, y: Tensor) -> Tensor:
        """(e / 2) ||y||^2."""
        return self.e / 2 * y.square().sum()


def _largest(x: Tensor) -> Tensor:
    """||x||_inf, 0 for an empty tensor."""
    return x.abs().max() if x.numel() else x.new_zeros(())


def _norm(x: Tensor, order: float) -> Tensor:
    """||x||_order, where no power of a single coordinate over- or underflows."""
    if not x.numel():
        return x.new_zeros(())
    largest = _positive(_largest(x))
    relative: Tensor = torch.linalg.vector_norm(x / largest, order)
    return relative * largest


def _positive(size: Tensor) -> Tensor:
    """The size as a divisor: 1 in place of 0."""
    return torch.where(size > 0, size, 1)
