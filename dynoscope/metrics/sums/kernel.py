"""All sums of a step, over all layers and devices."""

import collections
import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import torch

from dynoscope.measurement import Host
from dynoscope.metrics.packing import Packing
from dynoscope.metrics.shipping import Shipped
from dynoscope.metrics.sums import guarded, native
from dynoscope.metrics.sums.blocks import Block, Large, Scratch, Stack
from dynoscope.metrics.sums.guarded import Guarded
from dynoscope.metrics.sums.histogram import Counted
from dynoscope.metrics.sums.native import Native
from dynoscope.metrics.sums.pack import Pack
from dynoscope.metrics.sums.room import Room
from dynoscope.metrics.sums.shards import Reduction
from dynoscope.metrics.sums.spec import Means, Spec
from dynoscope.metrics.sums.tensors import SecondMoments, Tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Kernel"]


_T = TypeVar("_T")


class _Place(NamedTuple):
    """Where sums are taken, and how; each has a packed tensor of its own."""

    device: torch.device
    means: Means


_Turn: TypeAlias = tuple[int, int]
"""A part, and a turn of it."""


class _Member(NamedTuple):
    """A block of a turn, and which of the part's specs it is for; None: all of them."""

    at: list[int] | None
    block: Block
    pack: Pack


class Kernel:
    """The sums of some parameters, before and after an optimizer step.

    Call `before`, let the optimizer step, call `after`; then `ship` starts one
    asynchronous copy per device and returns a function that waits for the
    numbers, to be called on any thread. Several optimizers do the first two in
    any order, each for its part. Arguments are in the order of the part's specs;
    None stands for a tensor that does not exist, whose sums are 0. Of layers that take
    turns, the sums of those are taken whose turn it is, and the others' are 0.

    Of DTensors the local shards are summed, and `ship` completes the sums over the
    processes that have the others; the first of them is given the numbers.

    Args:
        specs: what is measured.
        processes: those that have shards of it; None where all of it is here.
    """

    def __init__(
        self, specs: Sequence[Spec], processes: "ProcessGroup | None" = None
    ) -> None:
        wide = any(
            s.parameter.dtype in (torch.float64, torch.complex128) for s in specs
        )
        specs = [
            dataclasses.replace(spec, means=_means(spec.parameter)) for spec in specs
        ]
        devices: dict[_Place, list[list[int]]] = collections.defaultdict(list)
        for group in _groups(specs):
            first = specs[group[0]]
            devices[_Place(first.parameter.device, first.means)].append(group)
        self._packing = Packing(
            [
                [specs[i].columns(i) for group in groups for i in group]
                for groups in devices.values()
            ]
        )
        self._packs: list[Pack] = []
        self._turns: dict[_Turn, list[_Member]] = collections.defaultdict(list)
        self._taken: set[int] = set()  # parts that are in the packs
        self._room = Room([s for s in specs if s.means != "torch" or not s.is_small])
        at = _positions(specs)
        placed: list[tuple[Pack, list[int]]] = []
        for place, groups in devices.items():
            pack = Pack(
                self._packing.shapes(len(self._packs)),
                _accumulation(place.means, wide=wide),
                place.device,
            )
            self._packs.append(pack)
            cuts = (cut for group in groups for cut in specs[group[0]].cuts)
            scratch = Scratch(max(cuts) if place.means == "torch" else 0, pack.flat)
            for group in groups:
                members = [specs[i] for i in group]
                block = _block(members, pack, scratch, self._room)
                places = [at[i] for i in group]
                count = sum(spec.part == members[0].part for spec in specs)
                self._turns[members[0].part, members[0].turn].append(
                    _Member(None if places == [*range(count)] else places, block, pack)
                )
            placed.append((pack, [i for group in groups for i in group]))
        self._reduction = (
            None if processes is None else Reduction(specs, placed, processes)
        )

    @property
    def kept_nbytes(self) -> int:
        """Bytes that hold weights of before a step, small layers of `Stack`s aside."""
        return self._room.nbytes

    @property
    def nbytes(self) -> int:
        """Host bytes that one step's numbers hold until they are fetched."""
        if self._reduction is not None:
            return self._reduction.nbytes
        return sum(pack.flat.nbytes for pack in self._packs)

    def before(
        self,
        grads: Tensors,
        momenta: Tensors,
        limits: Sequence[float],
        part: int = 0,
        turn: int = 0,
        *,
        again: bool = False,
    ) -> None:
        """Take what needs the momenta before the step; keep the weights.

        `limits` are beyond what |w| is counted as outside of a box, or infinite.
        Where gradients come into being inside the step it is done `again` once they
        are there, with the weights that were kept the first time.
        """
        self._clear(part, turn)
        for at, block, _ in self._turns[part, turn]:
            block.before(
                _those(grads, at), _those(momenta, at), _those(limits, at), again=again
            )

    def _clear(self, part: int, turn: int) -> None:
        """Forget the last step, or what a step that raised has left."""
        if part in self._taken:
            for _, block, _ in self._turns[part, turn]:
                block.sums.zero_()
        elif not self._taken:
            for pack in self._packs:
                pack.clear()
        self._taken.add(part)

    def after(
        self,
        grads: Tensors,
        momenta: Callable[[], Tensors],
        seconds: SecondMoments,
        part: int = 0,
        turn: int = 0,
    ) -> None:
        """Take what needs the weights, and the second moments, after the step.

        It asks for the momenta where there is something to count in them.
        """
        members = self._turns[part, turn]
        for at, block, _ in members:
            block.after(_those(grads, at), _those(seconds, at))
        # Counting costs a pass over everything. Where looking at a number is
        # free, do it only when a sum says that there is something to count.
        doubtful = [member for member in members if not member.block.is_finite]
        unsure = {pack for _, block, pack in doubtful if block.is_finite is None}
        finite = {pack for pack in unsure if pack.is_known_finite()}
        for at, block, pack in doubtful:
            if block.is_finite is False or pack not in finite:
                block.count(_those(grads, at), _those(momenta(), at))

    def ship(self, *, failed: bool = False, wish: int = 1) -> Callable[[], Host]:
        """Start the copies to the host; give a function that waits for them.

        With several processes all of them ship at the same steps, and only the first
        has the numbers.

        Args:
            failed: one of the other two calls raised here; there is nothing to ship,
                but the other processes are not to wait for this one.
            wish: how many steps from now this process would measure again.

        Raises:
            GroupError: the processes cannot talk to each other any more.
        """
        self._taken.clear()
        if self._reduction is not None:
            return self._reduction.ship(failed=failed, wish=wish)
        return Shipped(self._packing, [pack.ship() for pack in self._packs])

    def agreed(self) -> int | None:
        """The largest wish of all processes, at the last shipping but one.

        That has long arrived, so that nobody waits. None if there is no other process,
        or was no such shipping.
        """
        return None if self._reduction is None else self._reduction.agreed()

    def add_up(
        self, counted: Sequence[Counted], *, failed: bool = False
    ) -> Sequence[Counted]:
        """Histograms as the first process is to have them: those of all processes.

        Several processes do it at the same steps, before they ship. See `ship`.
        """
        if self._reduction is None:
            return counted
        return self._reduction.add_up(counted, failed=failed)


def _those(values: Sequence[_T], at: Sequence[int] | None) -> Sequence[_T]:
    return values if at is None else [*map(values.__getitem__, at)]


def _groups(specs: Sequence[Spec]) -> list[list[int]]:
    """Indices of the layers that are summed together."""
    groups: dict[Hashable, list[int]] = collections.defaultdict(list)
    for i, spec in enumerate(specs):
        if not spec.numel:
            continue  # an empty shard
        if spec.means != "torch":
            alike = spec.means, spec.parameter.device, spec.part, spec.turn
            groups[alike].append(i)
        else:
            groups[spec.likeness if spec.is_small else i].append(i)
    return [sorted(g, key=lambda i: not specs[i].channels) for g in groups.values()]


def _positions(specs: Sequence[Spec]) -> list[int]:
    """Where each spec stands among those of its part."""
    count: collections.Counter[int] = collections.Counter()
    positions = []
    for spec in specs:
        positions.append(count[spec.part])
        count[spec.part] += 1
    return positions


def _means(parameter: torch.Tensor) -> Means:
    """What takes the sums of a parameter."""
    if guarded.is_supported(parameter):
        return "triton"
    return "c" if native.is_supported(parameter) else "torch"


def _accumulation(means: Means, *, wide: bool) -> torch.dtype:
    """What sums are kept in; the kernel in C has them in float64 anyway."""
    if means == "torch":
        return torch.float64 if wide else torch.float32
    return torch.float64 if means == "c" else torch.float32


def _block(specs: Sequence[Spec], pack: Pack, scratch: Scratch, room: Room) -> Block:
    views = pack.claim(specs)
    if specs[0].means == "torch" and specs[0].is_small:
        return Stack(specs, views)
    kept = [room.of(spec) for spec in specs]
    match specs[0].means:
        case "c":
            return Native(specs, views, kept)
        case "triton":
            return Guarded(specs, views, kept)
        case "torch":
            return Large(specs[0], views, scratch, kept[0])
