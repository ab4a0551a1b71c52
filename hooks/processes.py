"""The processes that train a model together, and what each does of the watching."""

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.parameters import Models, model_of, reshard
from dynoscope.sharding import layout

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["ALONE", "Processes", "processes_of"]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among those that train the same model.

    Of replicas, as under DDP, the first process measures, and no other is asked for
    anything. Of shards each measures its own, and all go the same way: what is done
    at a step depends on nothing but the step's number.

    Attributes:
        group: the processes; None where this one is alone.
        rank: of this process in the group.
        sharded: whether each of them has a part of the model only.
    """

    group: "ProcessGroup | None" = None
    rank: int = 0
    sharded: bool = False

    @property
    def writes(self) -> bool:
        """Whether this process writes the run."""
        return self.rank == 0

    @property
    def measures(self) -> bool:
        """Whether this process measures anything."""
        return self.sharded or self.writes

    @property
    def sharing(self) -> "ProcessGroup | None":
        """The processes that have parts of the model, if it is sharded."""
        return self.group if self.sharded else None

    def agree(self, work: Callable[[], _T], sign: Callable[[_T], Any]) -> _T:
        """Do the same work on all; where one cannot do it, all raise its error.

        Args:
            work: what to do.
            sign: something to send that must be equal on all, by what they did.

        Raises:
            UnwatchableError: it is not.
        """
        if self.sharing is None:
            return work()
        done, error = _attempt(work)
        mine = None if error else sign(done[0])
        answers: list[Any] = [None] * torch.distributed.get_world_size(self.group)
        answer = (_portable(error), mine)
        torch.distributed.all_gather_object(answers, answer, self.group)
        if error is not None:
            raise error
        _raise_first([other for other, _ in answers])
        first = answers[0][1]
        for rank, (_, other) in enumerate(answers):
            if other != first:
                raise UnwatchableError(
                    f"process {rank} would watch other layers than process 0, or in "
                    "another way; pass the same to watch on all. Where processes have "
                    "different layers, as in pipeline parallelism, pass as "
                    "process_group= those that have the same"
                )
        return done[0]

    def lead(self, work: Callable[[], _T], tell: Callable[[_T], Any]) -> _T:
        """Do something on the first process; the others `follow`.

        Args:
            work: what to do.
            tell: what they are to know of it, if they have shards.
        """
        if self.sharing is None:
            return work()
        done, error = _attempt(work)
        outcome = [_portable(error), None if error else tell(done[0])]
        torch.distributed.broadcast_object_list(outcome, self._first, self.group)
        if error is not None:
            raise error
        return done[0]

    def follow(self) -> Any:
        """What the first process tells; if it has failed, its error is raised."""
        outcome: list[Any] = [None, None]
        torch.distributed.broadcast_object_list(outcome, self._first, self.group)
        _raise_first(outcome[:1])
        return outcome[1]

    @property
    def _first(self) -> int:
        assert self.group is not None
        return torch.distributed.get_global_rank(self.group, 0)

    def check(self, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
        """Refuse parameters whose sums the processes could not complete.

        Raises:
            UnwatchableError: the message says which, and why.
        """
        if self.sharing is None:
            return
        ranks = set(torch.distributed.get_process_group_ranks(self.sharing))
        first = self._first
        for name, parameter in zip(names, parameters, strict=True):
            lies = layout(parameter)
            if lies is None:
                continue
            on = set(lies.mesh.mesh.flatten().tolist())
            if any(placement.is_partial() for placement in lies.placements):
                raise UnwatchableError(f"{name!r} is a sum that is yet to be taken")
            missing = on - ranks
            if missing:
                raise UnwatchableError(
                    f"{name!r} is on process {min(missing)} as well, which is not in "
                    "process_group; pass a group of all that have parts of it"
                )
            if self.rank == 0 and first not in on:
                raise UnwatchableError(
                    f"{name!r} has no part on process {first}, the first of the group; "
                    "pass exclude= for it, or as process_group= those that have it"
                )


ALONE = Processes()
"""A process that trains by itself."""


def processes_of(model: Models, group: "ProcessGroup | None" = None) -> Processes:
    """The processes that train this model.

    Args:
        model: the model, or several.
        group: the processes, None for all there are.

    Raises:
        UnwatchableError: this process is not in the group, or it is not what torch
            calls a process group.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        if group is not None:
            raise UnwatchableError(
                "process_group= is given, but no group is initialized"
            )
        return ALONE
    group = torch.distributed.group.WORLD if group is None else group
    rank = torch.distributed.get_rank(group)
    if rank < 0:
        raise UnwatchableError(
            "this process is not in process_group; pass one that it is in"
        )
    if torch.distributed.get_world_size(group) == 1 and not _is_cut(model):
        return ALONE
    return Processes(group, rank, _is_cut(model))


def _is_cut(model: Models) -> bool:
    """Whether a parameter is dealt out to several processes."""
    own = model_of(model)
    reshard(own)
    layouts = map(layout, own.parameters())
    return any(lies is not None and lies.mesh.size() > 1 for lies in layouts)


def _attempt(work: Callable[[], _T]) -> tuple[list[_T], Exception | None]:
    try:
        return [work()], None
    except Exception as error:
        return [], error


def _portable(error: Exception | None) -> Exception | None:
    """The error, or its text where it cannot travel to other processes."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _raise_first(errors: Sequence[Exception | None]) -> None:
    for rank, error in enumerate(errors):
        if error is not None:
            error.add_note(f"This was raised by process {rank}.")
            raise error
