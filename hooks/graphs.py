"""Steps that are captured into a CUDA graph, which plays them back without hooks."""

from typing import Final

import torch

__all__ = ["CAPTURED", "is_capturing"]

CAPTURED: Final = (
    "the optimizer's step is being captured into a CUDA graph: no hook runs when it is "
    "replayed, so those steps are not recorded. Step outside of the graph now and then"
)


def is_capturing() -> bool:
    """Whether what is done now becomes part of a graph, and must not be measured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
