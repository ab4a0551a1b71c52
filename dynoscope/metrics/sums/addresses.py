"""Where in memory the tensors of layers lie, for kernels that are compiled."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynoscope.metrics.sums.tensors import Tensors, flat, kinds_of

__all__ = ["Addresses"]

_ADDRESS: Final[Callable[[Any], int]] = Tensor.data_ptr


class Addresses:
    """Where in memory one tensor of each layer lies.

    Args:
        like: a tensor of each layer; its elements' order is that of all.
        codes: by which numbers the kernel knows the dtypes that it reads.
    """

    def __init__(
        self, like: Sequence[Tensor], codes: Mapping[torch.dtype, int]
    ) -> None:
        self._like, self._strides = like, [x.stride() for x in like]
        self._codes = codes
        self._table = np.zeros((len(like), 2), np.int64)
        self._at: int = self._table.ctypes.data
        self._known: list[Tensor | None] = [None] * len(like)
        self._are_all = False  # there
        self._kinds: Sequence[Any] = ()  # of the last that were read as they are

    def point_to(self, tensors: Tensors) -> npt.NDArray[np.int64]:
        """Rows of address and code; address 0 where there is no tensor."""
        # A tensor that was there at the last step has been looked at then.
        if not all(map(operator.is_, tensors, self._known)):
            self._look_at(tensors)
        known = self._known
        self._table[:, 0] = (
            [*map(_ADDRESS, known)]
            if self._are_all
            else [0 if x is None else x.data_ptr() for x in known]
        )
        return self._table

    def address_of(self, tensors: Tensors) -> int:
        """Address of the same table, for a kernel on the host."""
        self.point_to(tensors)
        return self._at

    def _look_at(self, tensors: Tensors) -> None:
        there = [x for x in tensors if x is not None]
        self._are_all = len(there) == len(tensors)
        kinds = kinds_of(there) if self._are_all else ()
        if kinds and kinds == self._kinds:
            self._known = [*there]
            return
        self._look_at_each(tensors)
        as_they_are = all(map(operator.is_, tensors, self._known))
        self._kinds = kinds if as_they_are else ()

    def _look_at_each(self, tensors: Tensors) -> None:
        known, codes = self._known, self._codes
        for k, (x, strides) in enumerate(zip(tensors, self._strides, strict=True)):
            if x is known[k]:
                continue
            if x is not None and not (
                x.dtype in codes
                and x.stride() == strides
                and x.device == self._like[k].device
            ):
                x = self._readable(x, self._like[k])
            known[k] = x
        self._table[:, 1] = [0 if x is None else codes[x.dtype] for x in known]

    def let_go(self) -> None:
        """Keep no tensor alive: the training may want its memory back."""
        self._known, self._are_all = [None] * len(self._known), False

    @torch.no_grad()
    def _readable(self, x: Tensor, like: Tensor) -> Tensor:
        """A copy of a dtype, and with an order of elements, that the kernel reads."""
        if x.dtype not in self._codes:
            x = x.float()
        return flat(x.to(like.device), like)
