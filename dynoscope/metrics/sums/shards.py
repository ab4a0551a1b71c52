"""Sums of shards, completed over the processes that train one model together."""

import collections
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch import Tensor

from dynoscope.measurement import UNIT_SUMS, Host, Sum
from dynoscope.metrics.histograms import BINS
from dynoscope.metrics.packing import Packing
from dynoscope.metrics.sums.histogram import Counted
from dynoscope.metrics.sums.pack import Pack, start_copy
from dynoscope.metrics.sums.spec import Spec
from dynoscope.metrics.turning import Turning, rejoin
from dynoscope.sharding import counts_once, layout, rows_here

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["GroupError", "Reduction"]

_UNITS: Final = slice(UNIT_SUMS[0], UNIT_SUMS[-1] + 1)  # they are adjacent


class GroupError(Exception):
    """A collective failed, as when another process has died."""


class _Route(NamedTuple):
    """Which columns of a part of a pack are added to which of the whole's."""

    source: Tensor
    target: Tensor


class Reduction:
    """Adds up what each process has measured of its shards, on the first of them.

    All processes `ship` at the same steps, whatever has happened to one of them: it is
    one SUM and one MAX, in float64, of numbers in an order that is the same on all.
    Numbers that need a whole row or layer travel so that they can be rejoined.

    Args:
        specs: what is measured, alike on all processes.
        packs: where this process has its own sums, with the indices of the specs that
            they are of, in the order in which they are packed.
        group: the processes.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        packs: Sequence[tuple[Pack, Sequence[int]]],
        group: "ProcessGroup",
    ) -> None:
        self._group = group
        self._rank = torch.distributed.get_rank(group)
        self._first = torch.distributed.get_global_rank(group, 0)
        columns = [spec.columns_of_whole(i) for i, spec in enumerate(specs)]
        self._packing = Packing([columns])
        shapes = self._packing.shapes(0)
        widths = [width for _, width in shapes]
        size, device = torch.distributed.get_world_size(group), _device(specs)
        self._whole = Pack(
            # as one process has them; b**2/a of layers and rows; who has failed
            [*shapes, (1, widths[0]), (1, widths[1]), (1, size)],
            torch.float64,
            device,
        )
        # of each layer; and of what each process wishes
        self._largest = Pack([(1, len(specs)), (1, 1)], torch.float64, device)
        self._wishes: collections.deque[Callable[[], npt.NDArray[np.float64]]]
        self._wishes = collections.deque(maxlen=2)
        self._pinned: collections.deque[Tensor] = collections.deque()
        self._counts_once = [counts_once(spec.parameter, group) for spec in specs]
        starts = np.cumsum([[0, 0, 0], *(c.widths for c in columns)], axis=0)
        self._routes = [
            (pack, _routes([(specs[i], starts[i]) for i in at], group, device))
            for pack, at in packs
        ]

    @property
    def nbytes(self) -> int:
        """Host bytes that one step's numbers hold until they are fetched."""
        return self._whole.flat.nbytes + self._largest.flat.nbytes

    def ship(self, *, failed: bool = False, wish: int = 1) -> Callable[[], Host]:
        """Complete the sums, and start their copies to the host.

        Args:
            failed: this process has no sums; the others are not to wait for it.
            wish: how many steps from now it would measure again.

        Returns:
            A function that waits for the numbers; only the first process has them.

        Raises:
            GroupError: a collective failed; it makes no sense to enter another.
            Exception: any other is of this process alone, the collectives are done.
        """
        failure = _attempt(lambda: self._collect(failed))
        if failure is not None:
            self._collect(failed=True)
        self._largest.parts[1].fill_(wish)
        self._reduce(self._whole.flat, torch.distributed.ReduceOp.SUM)
        self._reduce(self._largest.flat, torch.distributed.ReduceOp.MAX, to_all=True)
        self.agreed()  # what is to be forgotten gives its memory back
        self._wishes.append(start_copy(self._largest.parts[1], self._pinned))
        if failure is not None:
            raise failure
        if self._rank:
            return _elsewhere
        waits = self._whole.ship(), self._largest.ship()
        return lambda: self._unpack(*(wait() for wait in waits))

    def agreed(self) -> int | None:
        """The largest wish at the last `ship` but one; None where there was none."""
        if len(self._wishes) < 2:
            return None
        wish = self._wishes[0]()
        self._wishes[0] = lambda: wish  # a copy is waited for once
        return int(wish.item())

    @torch.no_grad()
    def add_up(self, counted: Sequence[Counted], *, failed: bool) -> list[Counted]:
        """Histograms of all shards, on the first process; a collective more.

        Args:
            counted: histograms of the shards that are here.
            failed: this process has none; the others are not to wait for it.

        Raises:
            GroupError: as for `ship`, like all other errors.
        """
        layers = range(len(self._counts_once))
        whole = torch.zeros(
            2, len(layers), BINS, dtype=torch.int64, device=self._whole.flat.device
        )

        def collect() -> None:
            for at, counts in () if failed else counted:
                once = [k for k, layer in enumerate(at) if self._counts_once[layer]]
                whole[:, [at[k] for k in once]] = counts[:, once].to(whole.device)

        failure = _attempt(collect)
        self._reduce(whole, torch.distributed.ReduceOp.SUM)
        if failure is not None:
            raise failure
        return [] if self._rank else [Counted(layers, whole)]

    @torch.no_grad()
    def _collect(self, failed: bool) -> None:
        self._whole.flat.zero_()
        self._largest.flat.zero_()
        if failed:
            self._whole.parts[-1][0, self._rank] = 1
            return
        sums, rows, channels, along, along_rows, _ = self._whole.parts
        for pack, (of_layers, of_rows, of_channels) in self._routes:
            own = self._taken(pack.parts[0], of_layers)
            # NaN is not there to be compared: it is in the sum of squares as well
            largest = own[Sum.WEIGHT_MAX].nan_to_num(nan=0.0, posinf=torch.inf)
            self._largest.parts[0][0].scatter_reduce_(
                0, of_layers.target, largest, "amax"
            )
            own[Sum.WEIGHT_MAX] = 0
            sums.index_add_(1, of_layers.target, own)
            along.index_add_(1, of_layers.target, _along_sq(own[_UNITS]))
            own = self._taken(pack.parts[1], of_rows)
            rows.index_add_(1, of_rows.target, own)
            along_rows.index_add_(1, of_rows.target, _along_sq(own))
            own = self._taken(pack.parts[2], of_channels)
            channels.index_add_(1, of_channels.target, own)

    def _taken(self, part: Tensor, route: _Route) -> Tensor:
        return part.index_select(1, route.source).to(self._whole.flat)

    def _reduce(self, x: Tensor, how: Any, *, to_all: bool = False) -> None:
        try:
            if to_all:
                torch.distributed.all_reduce(x, how, self._group)
            else:
                torch.distributed.reduce(x, self._first, how, self._group)
        except Exception as error:
            raise GroupError(f"{type(error).__name__}: {error}") from error

    def _unpack(
        self, whole: npt.NDArray[np.float64], largest: npt.NDArray[np.float64]
    ) -> Host:
        sums, rows, _, along, along_rows, failed = self._whole.split(whole)
        sums[Sum.WEIGHT_MAX] = largest[:-1]
        sums[_UNITS] = rejoin(Turning(*sums[_UNITS]), along[0])
        rows[:] = rejoin(Turning(*rows), along_rows[0])
        host = self._packing.unpack([whole[: self._packing.size(0)]])
        host.sums[Sum.WEIGHT_MAX, np.isnan(host.sums[Sum.WEIGHT_SQ])] = np.nan
        return Host(
            host.sums, host.rows, host.channels, tuple(np.flatnonzero(failed).tolist())
        )


def _attempt(work: Callable[[], None]) -> Exception | None:
    """What goes wrong here, and must not keep the others waiting."""
    try:
        work()
    except Exception as error:
        return error
    return None


def _elsewhere() -> Host:
    raise RuntimeError("the numbers are on the first process of the group")


def _along_sq(unit_sums: Tensor) -> Tensor:
    """b**2/a of units, shape (1, units): what of the update is along the weight."""
    weight_sq, weight_update, _ = unit_sums
    along = weight_update.square() / weight_sq
    return torch.where(weight_sq == 0, 0.0, along).unsqueeze(0)


def _routes(
    members: Sequence[tuple[Spec, npt.NDArray[np.intp]]],
    group: "ProcessGroup",
    device: torch.device,
) -> list[_Route]:
    """For sums, rows and channels, what of a pack counts, and as what.

    Args:
        members: what it packs, and where the whole's columns of each start.
        group: the processes.
        device: of the whole.
    """
    targets: list[list[Tensor]] = [[], [], []]
    none = torch.zeros(0, dtype=torch.int64)
    for spec, starts in members:
        counts = counts_once(spec.parameter, group)
        columns = spec.columns(0)
        here = rows_here(spec.parameter).cpu() if spec.rows or spec.channels else none
        own = (
            torch.zeros(columns.pieces, dtype=torch.int64),
            here[: columns.rows],
            here[: columns.channels],
        )
        for part, start, at in zip(targets, starts, own, strict=True):
            part.append(start + at if counts else torch.full_like(at, -1))
    packed_on = members[0][0].parameter.device
    routes = []
    for target in map(torch.cat, targets):
        source = torch.nonzero(target >= 0).squeeze(1)
        routes.append(_Route(source.to(packed_on), target[source].to(device)))
    return routes


def _device(specs: Sequence[Spec]) -> torch.device:
    """Where the processes talk: weights may lie elsewhere, as with CPU offload."""
    for spec in specs:
        its_layout = layout(spec.parameter)
        if its_layout is not None and its_layout.mesh.device_type != "cpu":
            kind = its_layout.mesh.device_type
            return torch.device(kind, torch.get_device_module(kind).current_device())
    return torch.device("cpu")
