"""Where in memory the tensors of layers lie, for kernels that are compiled."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.metrics.sums.tensors import Tensors, flat

__all__ = ["Addresses"]


class Addresses:
    """Where in memory one tensor of each layer lies.

    Args:
        like: a tensor of each layer; its elements' order is that of all.
        codes: by which numbers the kernel knows the dtypes that it reads.
    """

    def __init__(
        self, like: Sequence[Tensor], codes: Mapping[torch.dtype, int]
    ) -> None:
        self._like, self._codes = like, codes
        self._table = np.zeros((len(like), 2), np.int64)
        self._known: list[Tensor | None] = [None] * len(like)

    def point_to(self, tensors: Tensors) -> npt.NDArray[np.int64]:
        """Rows of address and code; address 0 where there is no tensor."""
        known, table = self._known, self._table
        for k, x in enumerate(tensors):
            # A tensor that was there at the last step has been looked at then.
            if x is not known[k]:
                if x is not None:
                    x = self._readable(x, self._like[k])
                    table[k, 1] = self._codes[x.dtype]
                known[k] = x
        table[:, 0] = [0 if x is None else x.data_ptr() for x in known]
        return table

    def let_go(self) -> None:
        """Keep no tensor alive: the training may want its memory back."""
        self._known = [None] * len(self._known)

    def _readable(self, x: Tensor, like: Tensor) -> Tensor:
        """`x`, or a copy of a dtype and an order of elements that the kernel reads."""
        if x.dtype not in self._codes:
            x = x.float()
        if x.stride() == like.stride() and x.device == like.device:
            return x
        return flat(x.to(like.device), like)
