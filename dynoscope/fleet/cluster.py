"""Who does the work: this process, or a Dask cluster."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from dynoscope.errors import DynoscopeError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Cluster", "Workers", "dask_frames"]

Workers: TypeAlias = "Client | str | int | None"
"""A client of a cluster, its scheduler's address, a number of processes to start on
this machine, or None for this process."""

ROUNDS: Final = 4
"""How often each worker is given something, about: then none waits long for others."""

_T = TypeVar("_T")
_Answer = TypeVar("_Answer")

_CURE: Final = 'needs Dask: pip install "dynoscope[fleet]"'


class Cluster:
    """Calls functions for many items, here or on a cluster.

    Args:
        workers: who does the work.

    Attributes:
        client: the cluster's client, None if there is no cluster.

    Raises:
        DynoscopeError: Dask is not installed, or there is no such cluster.
    """

    def __init__(self, workers: Workers) -> None:
        self._mine: list[Any] = []  # to be closed, the last one first
        self.client: Client | None = None
        if workers is not None:
            self.client = self._connected(workers)

    @property
    def threads(self) -> int:
        """How many items are worked on at a time."""
        if self.client is None:
            return 1
        threads: dict[str, int] = self.client.nthreads()
        return max(sum(threads.values()), 1)

    def share(self, items: int) -> int:
        """How many of so many items to give to a worker at once."""
        return max(-(-items // (ROUNDS * self.threads)), 1)

    def map(
        self,
        function: Callable[[Sequence[_T]], list[_Answer]],
        bunches: Sequence[Sequence[_T]],
    ) -> list[_Answer]:
        """All answers for bunches of items, in their order.

        What a worker was at when it died is given to another one.
        """
        if self.client is None:
            found = [function(bunch) for bunch in bunches]
        else:
            # What runs hold may change between two calls.
            futures = self.client.map(function, bunches, pure=False)
            found = self.client.gather(futures)
        return list(itertools.chain.from_iterable(found))

    def close(self) -> None:
        """End what was started; a client that was given stays."""
        self.client = None
        while self._mine:
            self._mine.pop().close()

    def _connected(self, workers: "Client | str | int") -> "Client":
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise DynoscopeError(f"a fleet on a cluster {_CURE}") from None
        if isinstance(workers, Client):
            if workers.asynchronous:
                raise DynoscopeError(
                    f"{workers!r} is asynchronous; pass a Client without "
                    "asynchronous=True"
                )
            return workers
        if isinstance(workers, bool) or not isinstance(workers, int | str):
            raise DynoscopeError(
                f"client={workers!r} is no distributed.Client; pass one, or the "
                "address of a scheduler (tcp://host:8786), or a number of processes"
            )
        place: Any = workers
        if isinstance(workers, int):
            if workers < 1:
                raise DynoscopeError(f"client={workers}: pass one process or more")
            place = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",  # a port that is free
            )
            self._mine.append(place)
        try:
            self._mine.append(Client(place))
        except (OSError, ValueError, TypeError) as error:
            raise DynoscopeError(
                f"no Dask scheduler answers at {workers!r} ({error}); start one with "
                "`dask scheduler`, or pass a number of processes"
            ) from None
        client: Client = self._mine[-1]
        return client


def dask_frames() -> Any:
    """The module `dask.dataframe`.

    Raises:
        DynoscopeError: it is not installed.
    """
    try:
        import dask.dataframe
    except ImportError:
        raise DynoscopeError(f"a Dask dataframe {_CURE}") from None
    return dask.dataframe
