"""Find what there is to watch: the parameters that an optimizer moves in a model."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import nn

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.optimizers import Adapter, adapter_for, is_rotational
from dynoscope.measurement import Channels, Layer, Subject

__all__ = ["Watched", "find_watched"]


NORMALIZATIONS: Final = (
    nn.modules.batchnorm._NormBase,  # BatchNorm and InstanceNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


@dataclasses.dataclass(frozen=True)
class Watched:
    """A subject together with the live objects it describes.

    The model is the user's own, without the shells of DDP and torch.compile.
    """

    subject: Subject
    model: nn.Module
    optimizer: torch.optim.Optimizer
    parameters: tuple[nn.Parameter, ...]
    adapter: Adapter


@dataclasses.dataclass(eq=False)  # tensors do not compare to one bool
class _Found:
    """One parameter tensor of a model, under all of its names."""

    parameter: nn.Parameter
    module: nn.Module
    names: list[str]


def find_watched(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    neurons: bool = True,
) -> Watched:
    """Match the optimizer's parameters with the model's names.

    Args:
        model: the model, wrapped by DDP or torch.compile or not.
        optimizer: an optimizer over some or all of its parameters.
        include: regular expressions; only layers whose name one of them finds.
        exclude: regular expressions; no layer whose name one of them finds.
        neurons: whether matrices are measured row by row too.

    Raises:
        UnwatchableError: no parameter is left to watch; the message says why.
    """
    _check_types(model, optimizer)
    found = {id(f.parameter): f for f in _parameters(model)}
    groups = {
        id(p): index
        for index, group in enumerate(optimizer.param_groups)
        for p in group["params"]
    }
    moved = [f for key, f in found.items() if key in groups]
    if not moved:
        raise UnwatchableError(
            f"{type(optimizer).__name__} moves no parameter of this "
            f"{type(model).__name__}; was the optimizer made for another model, or "
            "before the model's parameters were replaced (.to(), fully_shard)?"
        )
    chosen = [f for f in moved if _is_chosen(f.names[0], include, exclude)]
    if not chosen:
        names = ", ".join(f.names[0] for f in moved[:5])
        raise UnwatchableError(
            f"include={include!r}, exclude={exclude!r} leave no layer to watch; "
            f"layers are named like: {names}"
        )
    layers = tuple(
        dataclasses.replace(
            _layer(f, groups[id(f.parameter)], neurons),
            rotational=is_rotational(
                optimizer,
                f.parameter,
                optimizer.param_groups[groups[id(f.parameter)]],
            ),
        )
        for f in chosen
    )
    adapter = adapter_for(optimizer)
    own = _unwrap(model)
    subject = Subject(
        model=type(own).__name__,
        layers=layers,
        normalization=tuple(_channels(chosen)),
        optimizer=adapter.describe(optimizer),
        unwatched={
            f.names[0]: "excluded" if key in groups else "not in the optimizer"
            for key, f in found.items()
            if f not in chosen
        },
    )
    parameters = tuple(f.parameter for f in chosen)
    return Watched(subject, own, optimizer, parameters, adapter)


def _check_types(model: object, optimizer: object) -> None:
    if not isinstance(model, nn.Module):
        raise UnwatchableError(
            f"the first argument of watch is a {type(model).__name__}, "
            "not a torch.nn.Module: watch(model, optimizer)"
        )
    if isinstance(optimizer, list | tuple | dict):
        raise UnwatchableError(
            "watch takes one optimizer; open a second watch, with a run of its "
            "own, for a second optimizer"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        inner = getattr(optimizer, "optimizer", None)
        cure = "pass its .optimizer" if inner is not None else "watch(model, optimizer)"
        raise UnwatchableError(
            f"{type(optimizer).__name__} is not a torch.optim.Optimizer: {cure}"
        )


def _unwrap(model: nn.Module) -> nn.Module:
    """The user's own model, without DDP's and torch.compile's shells."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def _parameters(model: nn.Module) -> Iterator[_Found]:
    """Parameters in the model's order, each once, with clean names."""
    found: dict[int, _Found] = {}
    for prefix, module in _unwrap(model).named_modules(remove_duplicate=False):
        path = prefix.replace("_orig_mod.", "").removesuffix("_orig_mod")
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}".lstrip(".")
            entry = found.setdefault(id(parameter), _Found(parameter, module, []))
            if full not in entry.names:
                entry.names.append(full)
    yield from found.values()


def _is_chosen(
    name: str,
    include: str | Sequence[str] | None,
    exclude: str | Sequence[str] | None,
) -> bool:
    included = include is None or _any_finds(include, name)
    return included and not (exclude is not None and _any_finds(exclude, name))


def _any_finds(patterns: str | Sequence[str], name: str) -> bool:
    listed = [patterns] if isinstance(patterns, str) else patterns
    try:
        return any(re.search(pattern, name) for pattern in listed)
    except re.error as error:
        raise UnwatchableError(
            f"{error.pattern!r} is not a regular expression: {error}"
        ) from None


def _layer(found: _Found, group: int, neurons: bool) -> Layer:
    parameter = found.parameter
    return Layer(
        name=found.names[0],
        shape=tuple(parameter.shape),
        dtype=str(parameter.dtype).removeprefix("torch."),
        module=type(found.module).__name__,
        group=group,
        rows=parameter.shape[0] if neurons and parameter.dim() > 1 else 0,
        aliases=tuple(found.names[1:]),
    )


def _channels(chosen: Sequence[_Found]) -> Iterator[Channels]:
    for index, found in enumerate(chosen):
        module = found.module
        if _is_normalization(module) and found.parameter is _offset(module):
            yield Channels(
                name=found.names[0],
                module=type(module).__name__,
                channels=found.parameter.numel(),
                layer=index,
            )


def _is_normalization(module: nn.Module) -> bool:
    # Models bring RMSNorms and LayerNorms of their own; the name says what they are.
    named = type(module).__name__.endswith(("RMSNorm", "LayerNorm"))
    return named or isinstance(module, NORMALIZATIONS)


def _offset(module: nn.Module) -> nn.Parameter | None:
    """What a normalization adds to its channels; where nothing, their factors."""
    for name in ("bias", "weight"):
        parameter = getattr(module, name, None)
        if isinstance(parameter, nn.Parameter):
            return parameter
    return None
