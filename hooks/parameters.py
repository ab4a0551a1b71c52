"""The parameters of a model, or of several, each once and under clean names."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from torch import nn

from dynoscope.errors import UnwatchableError

__all__ = ["Found", "Models", "model_of", "name_of", "parameters_in"]

Models: TypeAlias = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]


class _Several(nn.ModuleDict):
    """Models that are watched together; they are not changed by being in it."""


@dataclasses.dataclass(eq=False)  # tensors do not compare to one bool
class Found:
    """One parameter tensor of a model, under all of its names."""

    parameter: nn.Parameter
    module: nn.Module
    names: list[str]


def model_of(model: Models) -> nn.Module:
    """One module, without shells, whose names for parameters are those of layers.

    Raises:
        UnwatchableError: it is no module, nor several of them.
    """
    if isinstance(model, nn.Module):
        return _unwrap(model)
    if isinstance(model, Sequence) and not isinstance(model, str):
        model = {str(index): part for index, part in enumerate(model)}
    parts = dict(model) if isinstance(model, Mapping) else {}
    if not parts or not all(isinstance(part, nn.Module) for part in parts.values()):
        raise UnwatchableError(
            f"the first argument of watch is a {type(model).__name__}, not a "
            "torch.nn.Module, or several of them: watch(model, optimizer)"
        )
    try:
        return _Several({str(name): _unwrap(part) for name, part in parts.items()})
    except KeyError as error:
        raise UnwatchableError(f"no model can go by this name: {error}") from None


def name_of(model: nn.Module) -> str:
    """Class name of a model, or names of several."""
    if isinstance(model, _Several):
        return " + ".join(type(part).__name__ for part in model.values())
    return type(model).__name__


def _unwrap(model: nn.Module) -> nn.Module:
    """The user's own model, without DDP's and torch.compile's shells."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def parameters_in(model: nn.Module) -> Iterator[Found]:
    """Parameters in the model's order, each once, with clean names."""
    found: dict[int, Found] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        path = prefix.replace("_orig_mod.", "").removesuffix("_orig_mod")
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}".lstrip(".")
            entry = found.setdefault(id(parameter), Found(parameter, module, []))
            if full not in entry.names:
                entry.names.append(full)
    yield from found.values()
