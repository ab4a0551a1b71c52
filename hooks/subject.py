"""Find what there is to watch: the parameters that an optimizer moves in a model."""

import dataclasses
import itertools
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import nn

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.optimizers import Adapter, Group
from dynoscope.hooks.parameters import (
    Found,
    Models,
    class_name,
    model_of,
    name_of,
    parameters_in,
    reshard,
)
from dynoscope.hooks.recognition import adapter_for
from dynoscope.hooks.wrappers import is_rotational, resolve
from dynoscope.measurement import Channels, Layer, OptimizerInfo, Subject
from dynoscope.metrics.sums import kinds_of
from dynoscope.sharding import layout

__all__ = ["Moved", "Optimizers", "Watched", "find_watched"]

Optimizers: TypeAlias = (
    torch.optim.Optimizer
    | Sequence[torch.optim.Optimizer]
    | Mapping[str, torch.optim.Optimizer]
)

NORMALIZATIONS: Final = (
    nn.modules.batchnorm._NormBase,  # BatchNorm and InstanceNorm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


@dataclasses.dataclass(frozen=True)
class Moved:
    """An optimizer, and the watched parameters that it moves.

    Attributes:
        optimizer: whose steps are measured.
        adapter: how to read it.
        first_group: where its parameter groups begin among those of all optimizers.
        layers: where its layers stand among all.
        parameters: these layers' tensors.
        everything: all parameters of its groups, as they were when this was found.
        kinds: of `parameters`, how their data lay then; see `_kinds`.
    """

    optimizer: torch.optim.Optimizer
    adapter: Adapter
    first_group: int
    layers: tuple[int, ...]
    parameters: tuple[nn.Parameter, ...]
    everything: tuple[nn.Parameter, ...]
    kinds: list[Any]

    def is_current(self) -> bool:
        """Whether the optimizer still has the parameters that it had, of the same kind.

        `model.bfloat16()` and the like leave them in place, and their data elsewhere.
        """
        now, known = _parameters_of(self.optimizer), self.everything
        return (
            len(now) == len(known)
            and all(map(operator.is_, now, known))
            and _kinds(self.parameters) == self.kinds
        )


@dataclasses.dataclass(frozen=True)
class Watched:
    """A subject together with the live objects it describes.

    The model is the user's own, without the shells of DDP and torch.compile;
    several are in a ModuleList or ModuleDict.
    """

    subject: Subject
    model: nn.Module
    optimizers: tuple[Moved, ...]
    parameters: tuple[nn.Parameter, ...]
    owners: tuple[tuple[nn.Module, str], ...]  # each parameter's module and attribute

    def refuse_late_shards(self) -> None:
        """Make sure that the model has no DTensors in place of what was found.

        Raises:
            UnwatchableError: it has.
        """
        now = (module._parameters.get(name) for module, name in self.owners)
        if any(
            new is not old and new is not None and layout(new) and not layout(old)
            for new, old in zip(now, self.parameters, strict=True)
        ):
            raise UnwatchableError(
                "the model was sharded after it was given to dynoscope.watch: call "
                "fully_shard or parallelize_module first, then make the optimizer, "
                "then watch them"
            )

    @property
    def groups(self) -> list[Group]:
        """The parameter groups of all optimizers, as theory reads them."""
        return [
            moved.adapter.settings(moved.optimizer, group)
            for moved in self.optimizers
            for group in moved.optimizer.param_groups
        ]


def find_watched(
    model: Models,
    optimizer: Optimizers,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    neurons: bool = True,
) -> Watched:
    """Match the optimizers' parameters with the models' names.

    Args:
        model: the model, wrapped by DDP or torch.compile or not; several in a
            sequence or mapping, whose indices or keys their layers' names begin with.
        optimizer: an optimizer over some or all of the parameters, wrapped or not; or
            several.
        include: regular expressions; only layers whose name one of them finds.
        exclude: regular expressions; no layer whose name one of them finds.
        neurons: whether matrices are measured row by row too.

    Raises:
        UnwatchableError: no parameter is left to watch; the message says why.
    """
    own, adapters = model_of(model), _adapters(optimizer)
    optimizers = list(adapters)
    reshard(own)
    found = list(parameters_in(own))
    groups = _group_of_each(optimizers)
    for each in optimizers:
        _check_moves(each, found, own)
    chosen = [
        f
        for f in found
        if id(f.parameter) in groups
        and f.parameter.numel()
        and _is_chosen(f.names[0], include, exclude)
    ]
    if not chosen:
        moved = (f.names[0] for f in found if id(f.parameter) in groups)
        names = ", ".join(itertools.islice(moved, 5))
        raise UnwatchableError(
            f"include={include!r}, exclude={exclude!r} leave no layer to watch; "
            f"layers are named like: {names}"
        )
    return _watched(own, adapters, found, chosen, groups, neurons)


def _watched(
    model: nn.Module,
    adapters: Mapping[torch.optim.Optimizer, Adapter],
    found: Sequence[Found],
    chosen: Sequence[Found],
    groups: Mapping[int, int],
    neurons: bool,
) -> Watched:
    layers = [_layer(f, groups[id(f.parameter)], neurons) for f in chosen]
    parameters = tuple(f.parameter for f in chosen)
    moved, first = [], 0
    for optimizer, adapter in adapters.items():
        span = range(first, first + len(optimizer.param_groups))
        mine = tuple(i for i, layer in enumerate(layers) if layer.group in span)
        own = tuple(parameters[i] for i in mine)
        moved.append(
            Moved(
                optimizer,
                adapter,
                first,
                mine,
                own,
                _parameters_of(optimizer),
                _kinds(own),
            )
        )
        for i in mine:
            group = optimizer.param_groups[layers[i].group - first]
            layers[i] = dataclasses.replace(
                layers[i],
                rotational=is_rotational(optimizer, parameters[i], group),
                lr_factor=adapter.lr_factor(group, parameters[i]),
            )
        first = span.stop
    infos = tuple(each.adapter.describe(each.optimizer) for each in moved)
    subject = Subject(
        model=name_of(model),
        layers=tuple(layers),
        normalization=tuple(_channels(chosen)),
        optimizer=OptimizerInfo.joined(infos),
        unwatched={f.names[0]: _reason(f, groups) for f in found if f not in chosen},
        optimizers=infos if len(infos) > 1 else (),
    )
    owners = tuple((f.module, f.attribute) for f in chosen)
    return Watched(subject, model, tuple(moved), parameters, owners)


def _reason(found: Found, groups: Mapping[int, int]) -> str:
    """Why a parameter is not measured."""
    if id(found.parameter) not in groups:
        return "not in the optimizer"
    return "excluded" if found.parameter.numel() else "it has no elements"


def _adapters(optimizer: Optimizers) -> dict[torch.optim.Optimizer, Adapter]:
    """The optimizers whose steps are hooked, and how to read each."""
    if isinstance(optimizer, Mapping):
        optimizer = list(optimizer.values())
    listed = _listed(optimizer)
    if not listed:
        raise UnwatchableError("no optimizer is given: watch(model, optimizer)")
    hooked = [(resolve(each), each) for each in listed]
    adapters = {optimizer: adapter_for(optimizer, each) for optimizer, each in hooked}
    if len(adapters) < len(listed):
        raise UnwatchableError("the same optimizer is given twice")
    return adapters


def _listed(one_or_more: Any) -> list[Any]:
    if isinstance(one_or_more, Sequence) and not isinstance(one_or_more, str):
        return list(one_or_more)
    return [one_or_more]


def _parameters_of(optimizer: torch.optim.Optimizer) -> tuple[nn.Parameter, ...]:
    groups = map(operator.itemgetter("params"), optimizer.param_groups)
    return tuple(itertools.chain.from_iterable(groups))


def _kinds(parameters: Sequence[nn.Parameter]) -> list[Any]:
    return [*kinds_of(parameters), *map(torch.Tensor.numel, parameters)]


def _group_of_each(optimizers: Sequence[torch.optim.Optimizer]) -> dict[int, int]:
    """Per parameter's id, the index of its group among those of all optimizers."""
    groups: dict[int, int] = {}
    owners: dict[int, torch.optim.Optimizer] = {}
    index = 0
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if owners.setdefault(id(parameter), optimizer) is not optimizer:
                    raise UnwatchableError(
                        f"a parameter of shape {tuple(parameter.shape)} is in two of "
                        "the optimizers; its steps could not be told apart"
                    )
                groups[id(parameter)] = index
            index += 1
    return groups


def _check_moves(
    optimizer: torch.optim.Optimizer, found: Sequence[Found], model: nn.Module
) -> None:
    own = {id(parameter) for parameter in _parameters_of(optimizer)}
    if not any(id(f.parameter) in own for f in found):
        raise UnwatchableError(
            f"{type(optimizer).__name__} moves no parameter of this "
            f"{name_of(model)}; was the optimizer made for another model, or "
            "before the model's parameters were replaced (.to(), fully_shard)?"
        )


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


def _layer(found: Found, group: int, neurons: bool) -> Layer:
    parameter = found.parameter
    return Layer(
        name=found.names[0],
        # A complex number counts as two: so it is for optimizers, and in theory.
        shape=(*parameter.shape, *([2] if parameter.is_complex() else [])),
        dtype=str(parameter.dtype).removeprefix("torch."),
        module=class_name(found.module),
        group=group,
        rows=parameter.shape[0] if neurons and parameter.dim() > 1 else 0,
        aliases=tuple(found.names[1:]),
    )


def _channels(chosen: Sequence[Found]) -> Iterator[Channels]:
    for index, found in enumerate(chosen):
        module, parameter = found.module, found.parameter
        if parameter.is_complex():
            continue  # what is dead of a complex channel, nobody says
        if _is_normalization(module) and parameter is _offset(module):
            yield Channels(
                name=found.names[0],
                module=class_name(module),
                channels=found.parameter.numel(),
                layer=index,
            )


def _is_normalization(module: nn.Module) -> bool:
    # Models bring RMSNorms and LayerNorms of their own; the name says what they are.
    named = class_name(module).endswith(("RMSNorm", "LayerNorm"))
    return named or isinstance(module, NORMALIZATIONS)


def _offset(module: nn.Module) -> nn.Parameter | None:
    """What a normalization adds to its channels; where nothing, their factors."""
    for name in ("bias", "weight"):
        parameter = getattr(module, name, None)
        if isinstance(parameter, nn.Parameter):
            return parameter
    return None
