"""The gradient over a whole data set, with the parameters frozen."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dynoscope.errors import MeasurementError
from dynoscope.hooks.batches import (
    Samples,
    generators_of,
    sample_count,
    scalar_loss,
    take,
)
from dynoscope.hooks.frozen import frozen
from dynoscope.hooks.optimizers import capture
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import FloatArray, Rows
from dynoscope.metrics.full_gradient import GradientSums, full_gradient_metrics
from dynoscope.metrics.sums import real

__all__ = ["BatchLoss", "FullGradient", "full_gradient", "full_gradient_rows"]

BatchLoss = Callable[[nn.Module, Any], torch.Tensor]
"""From the model and a batch, the mean loss over the batch."""


@dataclasses.dataclass(frozen=True)
class FullGradient:
    """Loss and gradient over a data set, for parameters in a given order.

    Attributes:
        gradients: G, one float64 tensor per parameter; a complex parameter's has
            real and imaginary parts in a last dimension.
        noise: per parameter, the trace of the covariance of a single sample's
            gradient, estimated without bias; NaN from one batch alone.
        loss: mean loss.
        batches: batches that were looked at.
        samples: samples in them.
    """

    gradients: tuple[torch.Tensor, ...]
    noise: FloatArray
    loss: float
    batches: int
    samples: int


def full_gradient(
    model: nn.Module,
    parameters: Sequence[torch.Tensor],
    loader: Iterable[Any],
    loss_fn: BatchLoss,
    batches: int | None = None,
    samples: Samples | None = None,
) -> FullGradient:
    """Mean gradient over the samples of a loader; training is not touched.

    Every batch counts by its samples, so that the result does not depend on
    how they are batched, unless the loss does: in training mode BatchNorm
    normalizes by batch statistics. Sums are taken in float64.

    Args:
        model: the model; it stays in the mode it is in.
        parameters: with respect to which.
        loader: the batches.
        loss_fn: `loss_fn(model, batch)`, the mean loss over the batch.
        batches: how many batches at most, None for all.
        samples: number of samples in a batch, None for the length of its first
            tensor.

    Raises:
        MeasurementError: no batches, no scalar loss, or a loss that depends on
            none of the parameters.
    """
    mean = _RunningMean(parameters)
    with frozen(model, generators_of(loader)):
        for batch in take(loader, batches):
            count = sample_count(batch, samples)
            loss = scalar_loss(loss_fn(model, batch))
            mean.add(loss.detach(), _gradients(loss, parameters), count)
    return mean.result()


def _gradients(
    loss: torch.Tensor, parameters: Sequence[torch.Tensor]
) -> list[torch.Tensor | None]:
    gradients: Sequence[torch.Tensor | None] = [None]
    if loss.requires_grad and parameters:
        gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    if all(gradient is None for gradient in gradients):
        raise MeasurementError(
            "the loss depends on none of the watched parameters; loss_fn must use the "
            "model that it is given, and must not detach the loss"
        )
    dense = [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]
    return [None if gradient is None else real(gradient) for gradient in dense]


class _RunningMean:
    """Weighted mean and scatter of gradients, batch by batch.

    Updated with the distance of each batch from the mean so far, so that no
    difference of large sums is taken; nothing waits for the device.

    With b samples in a batch, whose gradient is g, the scatter sum b |g - G|^2
    over n batches has expectation (n - 1) tr(Sigma), for batches of any sizes,
    drawn independently or partitioning a data set.
    """

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._means = [_zeros(real(p).shape, p) for p in parameters]
        self._scatter = [_zeros((), parameter) for parameter in parameters]
        self._loss: torch.Tensor | None = None
        self._batches = self._samples = 0

    def add(
        self,
        loss: torch.Tensor,
        gradients: Sequence[torch.Tensor | None],
        samples: int,
    ) -> None:
        self._batches += 1
        self._samples += samples
        share = samples / self._samples
        if self._loss is None:
            self._loss = _zeros((), loss)
        self._loss += share * (loss.to(self._loss) - self._loss)
        each = zip(self._means, self._scatter, gradients, strict=True)
        for mean, scatter, gradient in each:
            # A loss that does not depend on a parameter has the gradient 0 there.
            far = -mean if gradient is None else gradient.to(mean) - mean
            mean += share * far
            scatter += samples * (1 - share) * far.square().sum()

    def result(self) -> FullGradient:
        scatter = np.array([float(scatter) for scatter in self._scatter])
        alone = self._batches == 1
        return FullGradient(
            gradients=tuple(self._means),
            noise=scatter / (np.nan if alone else self._batches - 1),
            loss=np.nan if self._loss is None else float(self._loss),
            batches=self._batches,
            samples=self._samples,
        )


def _zeros(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    # Apple's accelerator has no float64.
    device = "cpu" if like.device.type == "mps" else like.device
    return torch.zeros(shape, dtype=torch.float64, device=device)


def full_gradient_rows(
    watched: Watched,
    loader: Iterable[Any],
    loss_fn: BatchLoss,
    batches: int | None,
    samples: Samples | None,
) -> Rows:
    """Rows of the `full_gradients` table: the layers that are trained, and `*`."""
    layers = watched.subject.layers
    chosen = [k for k, p in enumerate(watched.parameters) if p.requires_grad]
    parameters = [watched.parameters[k] for k in chosen]
    found = full_gradient(watched.model, parameters, loader, loss_fn, batches, samples)
    states = [capture(group)() for group in watched.groups]
    decay = np.array([states[layers[k].group].weight_decay for k in chosen])
    sums = _sums(parameters, found, decay).with_whole()
    return Rows(
        "full_gradients",
        {
            "layer": np.array([*(layers[k].name for k in chosen), "*"]),
            "numel": sums.numel,
            "batches": found.batches,
            "samples": found.samples,
            "weight_decay": np.append(
                decay, decay[0] if (decay == decay[0]).all() else np.nan
            ),
            "loss": found.loss,
            **full_gradient_metrics(sums),
        },
    )


@torch.no_grad()
def _sums(
    parameters: Sequence[torch.Tensor], found: FullGradient, decay: FloatArray
) -> GradientSums:
    columns: dict[str, list[float]] = {"sq": [], "abs": [], "dot": [], "max": []}
    for parameter, gradient in zip(parameters, found.gradients, strict=True):
        weight = real(parameter).to(gradient)
        columns["sq"].append(float(gradient.square().sum()))
        columns["abs"].append(float(gradient.abs().sum()))
        columns["dot"].append(float((weight * gradient).sum()))
        columns["max"].append(float(weight.abs().max()) if weight.numel() else 0.0)
    weight_max = np.array(columns["max"])
    return GradientSums(
        numel=np.array([g.numel() for g in found.gradients], float),
        grad_sq=np.array(columns["sq"]),
        grad_abs=np.array(columns["abs"]),
        noise=found.noise,
        weight_max=weight_max,
        decay_grad=decay * np.array(columns["dot"]),
        box=decay * weight_max,
    )
