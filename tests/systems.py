"""Systems small enough to simulate in a test and rich enough to be real."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer

Array = NDArray[np.float64]


class Walk(NamedTuple):
    """What a walk measured, in float64: a row is a step, a column a row of W."""

    weight_norm: Array  # before the step
    angular_update: Array  # of the step, in radians
    effective_grad_sq: Array  # ||g||^2 ||w||^2 at the step

    def settled(self) -> "Walk":
        """The walk without its first third."""
        return Walk(*(series[len(series) // 3 :] for series in self))


class RandomWalk:
    """A layer whose gradients are noise: Kosson et al. 2024, appendix J.

    The system is gamma_out * N(W (gamma_in * X)) with a batch normalization N, so
    each row of W is scale-invariant. Inputs and output gradients are drawn anew at
    every step; only W is trained. The gammas give the weights gradients of
    different sizes; `even` sets their magnitude to one.
    """

    def __init__(
        self,
        rows: int = 64,
        columns: int = 64,
        *,
        batch: int = 32,
        seed: int = 0,
        even: bool = False,
        loss_scale: float = 1.0,
    ) -> None:
        self._noise = torch.Generator().manual_seed(seed)
        self._shape = (batch, columns)
        gamma_in, gamma_out = self._normal(columns), self._normal(rows)
        if even:
            gamma_in, gamma_out = gamma_in.sign(), gamma_out.sign()
        self._gamma_in = gamma_in
        self._output_scale = gamma_out * (loss_scale / (rows * batch))
        bound = columns**-0.5
        start = torch.empty(rows, columns).uniform_(
            -bound, bound, generator=self._noise
        )
        self.weight = torch.nn.Parameter(start)

    @property
    def numel(self) -> int:
        """Number of weights in a row, the scale-invariant group."""
        return self.weight.shape[1]

    def rescale(self, weight_norm: ArrayLike) -> None:
        """Give every row the norm asked for, its direction unchanged."""
        norm = torch.tensor(weight_norm, dtype=torch.float64)
        with torch.no_grad():
            row_norm = self.weight.double().norm(dim=1)
            self.weight.mul_((norm / row_norm).unsqueeze(1))

    def effective_grad_sq(self, draws: int = 300) -> Array:
        """E||g~||^2 of every row where the weights are now, by drawing gradients."""
        total = torch.zeros(len(self.weight), dtype=torch.float64)
        for _ in range(draws):
            total += _row_squares(self.draw_gradient())
        return (total / draws * _row_squares(self.weight.detach())).numpy()

    def draw_gradient(self) -> Tensor:
        """Draw inputs and output gradients, backpropagate, return W's gradient."""
        inputs = self._normal(*self._shape) * self._gamma_in
        outputs = functional.batch_norm(
            functional.linear(inputs, self.weight),
            running_mean=None,
            running_var=None,
            training=True,
            eps=1e-12,  # a larger one would make the rows scale-sensitive
        )
        output_grad = self._normal(*outputs.shape) * self._output_scale
        (self.weight.grad,) = torch.autograd.grad(outputs, self.weight, output_grad)
        return self.weight.grad

    def run(
        self, make_optimizer: Callable[[list[Tensor]], Optimizer], steps: int = 3000
    ) -> Walk:
        """Train for some steps and measure every row's norm and rotation."""
        optimizer = make_optimizer([self.weight])
        measured = [self._step(optimizer) for _ in range(steps)]
        return Walk(*torch.stack(measured).permute(1, 0, 2).numpy())

    def _step(self, optimizer: Optimizer) -> Tensor:
        grad_sq = _row_squares(self.draw_gradient())
        before = self.weight.detach().double()
        optimizer.step()
        delta = self.weight.detach().double() - before
        weight_sq = (before * before).sum(dim=1)
        along, delta_sq = (before * delta).sum(dim=1), (delta * delta).sum(dim=1)
        across = (weight_sq * delta_sq - along**2).clamp(min=0).sqrt()
        angle = torch.atan2(across, weight_sq + along)
        return torch.stack([weight_sq.sqrt(), angle, grad_sq * weight_sq])

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._noise)


def _row_squares(matrix: Tensor) -> Tensor:
    return matrix.double().square().sum(dim=1)
