"""The parameters of a model, or of several, each once and under clean names."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from torch import nn

from dynoscope.errors import UnwatchableError

__all__ = [
    "Found",
    "Models",
    "class_name",
    "model_of",
    "name_of",
    "parameters_in",
    "reshard",
]

Models: TypeAlias = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]


_SHELLS: Final = frozenset(
    {
        "_checkpoint_wrapped_module",
        "_forward_module",
        "_fsdp_wrapped_module",
        "_orig_mod",
    }
)
"""What torch.compile, torch.distributed and Fabric call the module that they wrap."""


_REPLICAS: Final = (nn.DataParallel, nn.parallel.DistributedDataParallel)

_SHARDED: Final = "FSDPModule"
"""The class that `fully_shard` gives to modules, known by name."""


class _Several(nn.ModuleDict):
    """Models that are watched together; they are not changed by being in it."""


@dataclasses.dataclass(eq=False)  # tensors do not compare to one bool
class Found:
    """One parameter tensor of a model, under all of its names."""

    parameter: nn.Parameter
    module: nn.Module
    names: list[str]

    @property
    def attribute(self) -> str:
        """Its name in the module itself."""
        return self.names[0].rpartition(".")[2]


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
        return " + ".join(class_name(part) for part in model.values())
    return class_name(model)


def class_name(module: nn.Module) -> str:
    """Class name of a module, that from before `fully_shard`."""
    names = [cls.__name__ for cls in type(module).__mro__]
    # it puts a class of its own between a new one and the module's
    return names[names.index(_SHARDED) + 1] if _SHARDED in names else names[0]


def _unwrap(model: nn.Module) -> nn.Module:
    """The user's own model, without DDP's and torch.compile's shells."""
    while True:
        if isinstance(model, _REPLICAS):
            model = model.module
            continue
        inner = (getattr(model, name, None) for name in _SHELLS)
        found = next((each for each in inner if isinstance(each, nn.Module)), None)
        if found is None:
            return model
        model = found


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules with their paths, under which no wrapper shows."""
    paths = {"": ""}
    modules = {"": model}
    for prefix, module in model.named_modules(remove_duplicate=False):
        modules[prefix] = module
        if prefix:
            above, _, name = prefix.rpartition(".")
            replicas = isinstance(modules[above], _REPLICAS) and name == "module"
            shell = replicas or name in _SHELLS
            paths[prefix] = paths[above] if shell else f"{paths[above]}.{name}"
        yield paths[prefix].lstrip("."), module


def reshard(model: nn.Module) -> None:
    """Have `fully_shard` put back the parameters that the optimizer knows.

    After a forward pass without a backward one, as in validation, the model still
    has whole ones in their place; the next forward pass makes them again.

    Raises:
        UnwatchableError: the model is sharded in a way that cannot be watched.
    """
    for module in model.modules():
        names = [cls.__name__ for cls in type(module).__mro__]
        if "FullyShardedDataParallel" in names:
            raise UnwatchableError(
                "FullyShardedDataParallel (FSDP1) makes flat pieces of the parameters, "
                "of which no layer can be told; use torch.distributed.fsdp.fully_shard"
            )
        if _SHARDED in names:
            module.reshard()  # type: ignore[operator]


def parameters_in(model: nn.Module) -> Iterator[Found]:
    """Parameters in the model's order, each once, with clean names."""
    found: dict[int, Found] = {}
    for path, module in _modules(model):
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{path}.{name}".lstrip(".")
            entry = found.setdefault(id(parameter), Found(parameter, module, []))
            if full not in entry.names:
                entry.names.append(full)
    yield from found.values()
