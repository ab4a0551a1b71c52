"""Run code on a live model and leave no trace in its training."""

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

__all__ = ["frozen", "holding"]


@contextlib.contextmanager
def frozen(
    model: nn.Module, generators: Iterable[torch.Generator] = ()
) -> Iterator[None]:
    """Keep what forward and backward passes change, and give it back bit for bit.

    Kept are `.grad`, buffers (running statistics), `training` flags, the
    autocast cache, and the random states of torch on the CPU and on the
    model's devices, of NumPy and of Python. In the block gradients can be
    taken, whatever the mode around it; every block that is entered from the
    same state sees the same random numbers. Nothing is written in place, so a
    graph that waits for its backward pass stays valid.

    Not kept are parameters that the block itself writes to, and plain Python
    attributes of modules.

    Args:
        model: the model.
        generators: further random states to keep.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_random_states(model, generators))
        stack.enter_context(_autocast_cache_off())
        stack.enter_context(_modules(model))
        stack.enter_context(_gradients(model))
        yield


@contextlib.contextmanager
def holding(tensor: torch.Tensor, values: torch.Tensor) -> Iterator[None]:
    """Let a tensor have other values for a while.

    Its own storage is set aside, not written to: it comes back as it was, in
    the same place, and no version counter that autograd checks is moved.
    """
    kept = tensor.data
    tensor.data = values
    try:
        yield
    finally:
        tensor.data = kept


@contextlib.contextmanager
def _random_states(
    model: nn.Module, generators: Iterable[torch.Generator]
) -> Iterator[None]:
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    kept = [(generator, generator.get_state()) for generator in generators]
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", *(device.type for device in devices)}:
            own = [d for d in devices if d.type == kind and kind != "cpu"]
            # On the CPU there is one state, which is kept in any case.
            fork = torch.random.fork_rng(own, device_type=kind)
            stack.enter_context(fork)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
            for generator, state in kept:
                generator.set_state(state)


@contextlib.contextmanager
def _autocast_cache_off() -> Iterator[None]:
    """Neither use nor leave casts of weights that hold at one moment only."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)


@contextlib.contextmanager
def _modules(model: nn.Module) -> Iterator[None]:
    """Let modules work on copies of their buffers, and switch modes as they like."""
    modes = [(module, module.training) for module in model.modules()]
    tables = [(module._buffers, dict(module._buffers)) for module, _ in modes]
    with contextlib.ExitStack() as stack:
        for buffer in model.buffers():  # each once, however many modules share it
            stack.enter_context(holding(buffer, buffer.detach().clone()))
        try:
            yield
        finally:
            for buffers, kept in tables:  # some modules replace a buffer by another
                buffers.clear()
                buffers.update(kept)
            for module, training in modes:
                module.training = training


@contextlib.contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Set gradients aside: a loss that calls backward does not add to them."""
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient
