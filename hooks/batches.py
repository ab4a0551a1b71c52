"""Batches and losses as a training loop has them, checked before they are used."""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader

from dynoscope.errors import MeasurementError

__all__ = ["Samples", "generators_of", "sample_count", "scalar_loss", "take"]

Samples: TypeAlias = Callable[[Any], int]
"""From a batch, the number of its samples."""


def take(loader: Iterable[Any], batches: int | None) -> Iterator[Any]:
    """The batches of a loader, or the first few of them.

    Args:
        loader: anything that gives batches when iterated over.
        batches: how many at most, None for all.

    Raises:
        MeasurementError: `batches` makes no sense, or there is no batch.
    """
    if batches is not None and not (isinstance(batches, Integral) and batches >= 1):
        raise MeasurementError(
            f"batches={batches!r} leaves nothing to measure: pass a whole number "
            "from 1, or None for all that the loader has"
        )
    if isinstance(loader, torch.Tensor | Mapping) or not isinstance(loader, Iterable):
        raise MeasurementError(
            f"a {type(loader).__name__} is not a loader of batches; "
            "pass a DataLoader, or a list of batches: [batch]"
        )
    if isinstance(loader, DataLoader):
        # A loader with lasting workers has one iterator: the training's own.
        twin = copy.copy(loader)
        twin._iterator = None
        loader = twin
    nothing = object()
    iterator = iter(loader)
    first = next(iterator, nothing)
    if first is nothing:
        spent = "is an iterator that is spent" if iterator is loader else "is empty"
        raise MeasurementError(
            f"there is no batch to measure: the {type(loader).__name__} {spent}; "
            "pass a DataLoader or a list that has batches"
        )
    rest = iterator if batches is None else itertools.islice(iterator, batches - 1)
    return itertools.chain([first], rest)


def generators_of(loader: object) -> list[torch.Generator]:
    """The generators that a loader shuffles with, where it has its own."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    places = (
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    found = [getattr(place, "generator", None) for place in places]
    unique = {id(g): g for g in found if isinstance(g, torch.Generator)}
    return list(unique.values())


def sample_count(batch: Any, samples: Samples | None) -> int:
    """Number of samples in a batch.

    Args:
        batch: the batch.
        samples: how to tell; None takes the length of the first tensor in it.

    Raises:
        MeasurementError: it cannot be told, or there are none.
    """
    count = _length(batch) if samples is None else samples(batch)
    if count is None:
        raise MeasurementError(
            f"how many samples a batch of type {type(batch).__name__} has cannot be "
            "told: it holds no tensor; pass samples=, a function from batch to int"
        )
    if count < 1:
        raise MeasurementError(
            f"a batch has {count} samples; leave empty batches out of the loader"
        )
    return count


def _length(batch: Any) -> int | None:
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.dim() else None
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if not isinstance(batch, list | tuple):
        return None
    lengths = (_length(part) for part in batch)
    return next((length for length in lengths if length is not None), None)


def scalar_loss(loss: Any) -> torch.Tensor:
    """A loss of shape (), as a loss function gave it.

    Raises:
        MeasurementError: it is no tensor of one real number.
    """
    if not isinstance(loss, torch.Tensor):
        raise MeasurementError(
            f"loss_fn returned a {type(loss).__name__}; it must return the loss as a "
            "tensor, before .item()"
        )
    if loss.numel() != 1:
        raise MeasurementError(
            f"loss_fn returned a tensor of shape {tuple(loss.shape)}, not one number; "
            "return the mean over the batch, as loss.mean()"
        )
    if not loss.is_floating_point():
        raise MeasurementError(
            f"loss_fn returned a loss of {loss.dtype}, not of floats"
        )
    return loss.reshape(())
