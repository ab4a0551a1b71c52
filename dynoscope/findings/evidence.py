"""What a rule sees: what is watched, and how the run went so far."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dynoscope.findings.history import ChannelTotals, History
from dynoscope.findings.thresholds import Thresholds
from dynoscope.measurement import (
    Channels,
    FloatArray,
    Layer,
    OptimizerInfo,
    Subject,
)
from dynoscope.reader import Block

__all__ = ["Evidence", "Mask", "subject_of"]

Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A run so far. Arrays are of shape (buckets, layers) or (layers,).

    Attributes:
        subject: layers, normalization layers and the optimizer.
        thresholds: from where on rules speak up.
        history: means of every column of `layers`, over buckets of steps.
        channels: totals of the normalization layers.
        latest: the rows that are new since the rules were asked last, one a step.
        ended: whether the run is over.
    """

    subject: Subject
    thresholds: Thresholds
    history: History
    channels: ChannelTotals
    latest: Block
    ended: bool

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(layer.name for layer in self.subject.layers)

    @functools.cached_property
    def kinds(self) -> tuple[str | None, ...]:
        """Per layer, the theory of its optimizer (`adamw`, ...); None if unknown."""
        kinds = self.subject.optimizer.kinds
        return tuple(kinds[layer.group] for layer in self.subject.layers)

    @functools.cached_property
    def is_weight(self) -> Mask:
        """Matrices and filters: no gains, biases or embeddings, shape (layers,)."""
        return np.array(
            [
                len(layer.shape) > 1 and "Embedding" not in layer.module
                for layer in self.subject.layers
            ]
        )

    @functools.cached_property
    def is_scale_invariant(self) -> Mask:
        """Layers whose gradient is at right angles to the weight, shape (layers,)."""
        cosine = self.column("weight_grad_cos")
        square = self.mean(cosine**2, np.isfinite(cosine))
        small: Mask = square <= self.thresholds.scale_invariant_cos**2
        return small

    @functools.cached_property
    def half_lives(self) -> FloatArray:
        """Half-lives of the norm until the end of each bucket, (buckets, layers)."""
        half_life = self.column("pred_half_life")
        with np.errstate(divide="ignore"):
            gained = self.history.spans[:, None] / half_life
        return np.cumsum(np.where(np.isfinite(gained), gained, 0.0), axis=0)

    @functools.cached_property
    def settled(self) -> Mask:
        """The last half-life of layers that should have settled, (buckets, layers)."""
        age = self.half_lives
        needed = self.thresholds.settled_half_lives
        settled: Mask = (age >= np.maximum(needed, age[-1] - 1)) & (age[-1] >= needed)
        return settled

    @functools.cached_property
    def recent(self) -> Mask:
        """The newest buckets, a share of the run, shape (buckets, 1)."""
        steps = self.history.starts
        span = self.history.last_step + 1 - steps[0]
        since = self.history.last_step + 1 - self.thresholds.recent * span
        newest: Mask = steps[:, None] >= since
        newest[-1] = True
        return newest

    def column(self, name: str) -> FloatArray:
        """A column of `layers`, all NaN if this run lacks it."""
        if name not in self.history.columns:
            return np.full((len(self.history.starts), len(self.names)), np.nan)
        return self.history.means(name)

    def mean(self, values: FloatArray, where: Mask) -> FloatArray:
        """Mean over the measured steps of some buckets, NaN if there are none.

        Args:
            values: shape (buckets, layers).
            where: which to take, shape (buckets, layers) or (buckets, 1).
        """
        taken = where & ~np.isnan(values)
        weight = np.where(taken, self.history.counts[:, None], 0)
        total = np.where(taken, values * self.history.counts[:, None], 0.0).sum(axis=0)
        with np.errstate(invalid="ignore"):
            mean: FloatArray = total / weight.sum(axis=0)
        return mean

    def first(self, where: Mask, layer: int) -> int:
        """First step of the first bucket in which something holds for a layer."""
        of_layer = np.broadcast_to(where, (len(where), len(self.names)))[:, layer]
        return int(self.history.starts[of_layer.argmax()])


def subject_of(manifest: Mapping[str, Any]) -> Subject:
    """What a run watched, from its manifest."""
    optimizer = manifest["optimizer"]
    known = {field.name for field in dataclasses.fields(OptimizerInfo)}
    lists = ("kinds", "reasons", "hyperparameters")
    info = {name: value for name, value in optimizer.items() if name in known}
    info |= {name: tuple(optimizer[name]) for name in lists}
    return Subject(
        model=manifest["model"]["name"],
        layers=tuple(_layer(entry) for entry in manifest["layers"]),
        normalization=tuple(Channels(**entry) for entry in manifest["normalization"]),
        optimizer=OptimizerInfo(**info),
        unwatched=manifest["unwatched"],
    )


def _layer(entry: Mapping[str, Any]) -> Layer:
    given = {name: value for name, value in entry.items() if name != "numel"}
    for name in ("shape", "aliases"):
        given[name] = tuple(given[name])
    return Layer(**given)
