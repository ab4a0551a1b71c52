"""The two hooks around each optimizer's step."""

import dataclasses
import functools
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.hooks import RemovableHandle

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.follower import Counts, Follower, has_closure, is_nested_step
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import GroupState, Measurement
from dynoscope.metrics.histograms import BINS
from dynoscope.metrics.sums import Kernel, Spec
from dynoscope.schedule import Schedule, log_spaced

__all__ = ["Sink", "Watcher"]

_attached: dict[int, "Watcher"] = {}
"""Watchers by the id of each optimizer and parameter they hold on to."""


class Sink(Protocol):
    """Where measurements go."""

    def has_room(self) -> bool:
        """Whether another measurement can be taken now."""

    def put(self, measurement: Measurement) -> None:
        """Take a measurement; never blocks."""

    def note(self, problem: str) -> None:
        """Note what the user should know, once."""

    def fail(self, part: str, error: Exception) -> None:
        """Note that a part of dynoscope failed and is off from now on."""


class Watcher:
    """Measures the steps of one or several optimizers, from `attach` to `detach`.

    Steps are counted in rounds: in a round each optimizer steps once at most. With
    one optimizer every step is a round; of a GAN's two, that step in turn, both steps
    are; where one steps five times for each of the other's, a round has one or two.

    Args:
        find: finds what to measure; asked again when an optimizer is given other
            parameters than it had.
        schedule: which rounds to measure.
        histograms: whether to count what weights and gradients are, too.

    Attributes:
        watched: what is measured.
        step: number of rounds that have ended, those of a resumed run's past included.
        skipped: measurements given up since the last one that was put.

    Raises:
        UnwatchableError: there is nothing to measure; or an optimizer, or one of these
            parameters, is being watched already.
    """

    def __init__(
        self,
        find: Callable[[], Watched],
        schedule: Schedule,
        *,
        histograms: bool = False,
    ) -> None:
        self._find, self._schedule = find, schedule
        self._histograms, self._histogram_due = histograms, log_spaced()
        self._handles: list[RemovableHandle] = []
        self.step = self.skipped = 0
        self._adopt(find())
        count = len(self.watched.optimizers)
        self._depths, self._own_steps = [0] * count, [0] * count
        self._round: _Round | None = None

    def start_at(self, step: int) -> None:
        """Count on from a step that a run has got to before."""
        self.step, self._own_steps = step, [step] * len(self._own_steps)

    @property
    def taken(self) -> int:
        """Rounds in which an optimizer has stepped: the one that is open counts."""
        return self.step + bool(self._round and self._round.stepped)

    def attach(self, sink: Sink, after_step: Callable[[], None] | None = None) -> None:
        """Register the hooks; measurements go to `sink`.

        Args:
            sink: where measurements go.
            after_step: called after every step, measured or not. What it raises is
                meant for the user, and comes out of the optimizer's step.
        """
        self._sink, self._after_step = sink, after_step
        self._hold()
        for part, moved in enumerate(self.watched.optimizers):
            # torch.compile would trace into hooks; they are not for it to see.
            before = torch.compiler.disable(functools.partial(self._before, part))
            after = torch.compiler.disable(functools.partial(self._after, part))
            self._handles += [
                moved.optimizer.register_step_pre_hook(before),
                moved.optimizer.register_step_post_hook(after),
            ]

    def detach(self) -> None:
        """Remove the hooks, end an open round; calling it again does nothing."""
        for handle in self._handles:
            handle.remove()
        if self._handles and self._round is not None and self._round.stepped:
            try:
                self._end_round(self._round)
            except Exception as error:
                self._sink.fail("measuring", error)
        self._handles.clear()
        self._let_go()

    def _before(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> None:
        if self._depths[part] and is_nested_step(optimizer):
            self._depths[part] += 1  # a subclass's step has called its parent's
            return
        self._depths[part] = 1
        try:
            current = self._round_of(part)
            if current.measured is not None:
                start = time.perf_counter()
                follower = self._followers[part]
                follower.before(has_closure(args, kwargs), count=current.counting)
                current.seconds += time.perf_counter() - start
        except Exception as error:
            self._give_up(error)

    def _after(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> None:
        self._depths[part] -= 1
        if self._depths[part]:
            return
        current = self._round or _Round()
        try:
            if current.measured is not None:
                start = time.perf_counter()
                self._followers[part].after()
                current.measured[part] = self._own_steps[part]
                current.seconds += time.perf_counter() - start
            current.stepped.add(part)
            self._own_steps[part] += 1
            if len(current.stepped) == len(self._depths):
                self._end_round(current)
        except Exception as error:
            self._give_up(error)
        if self._after_step is not None:
            self._after_step()

    def _round_of(self, part: int) -> "_Round":
        """The round that this optimizer's next step belongs to."""
        current = self._round
        if current is not None and part in current.stepped:
            self._end_round(current)
        elif current is not None and current.stepped:
            return current
        self._round = _Round()
        if self._schedule(self.step):
            if self._sink.has_room():
                self._begin(self._round)
            else:
                self.skipped += 1
        return self._round

    def _begin(self, opened: "_Round") -> None:
        if not all(follower.is_current() for follower in self._followers):
            self._renew()
        opened.measured = {}
        opened.counting = self._histograms and self._histogram_due(self.step)

    def _end_round(self, ended: "_Round") -> None:
        self._round = None
        step, self.step = self.step, self.step + 1
        if not ended.measured:
            return
        start = time.perf_counter()
        fetch = self._kernel.ship()
        followers = self._followers
        stepped = [f for part, f in enumerate(followers) if part in ended.measured]
        layers = len(self.watched.subject.layers)
        has_grad, limits = np.zeros(layers, bool), np.full(layers, np.inf)
        for follower in stepped:
            at = list(follower.moved.layers)
            has_grad[at] = [grad is not None for grad in follower.grads]
            limits[at] = follower.limits
            follower.grads = []  # the training may want to free them
        counts = [f.counts for f in stepped] if ended.counting else []
        self._sink.put(
            Measurement(
                subject=self.watched.subject,
                step=step,
                own_steps=tuple(map(ended.measured.get, range(len(followers)))),
                wall_time=time.time(),
                groups=_groups(followers, ended.measured),
                has_grad=has_grad,
                limits=limits,
                fetch=fetch,
                nbytes=self._kernel.nbytes + sum(c.nbytes for c in counts),
                hook_seconds=ended.seconds + time.perf_counter() - start,
                skipped=self.skipped,
                histograms=_joined(counts, layers) if counts else None,
            )
        )
        self.skipped = 0

    def _adopt(self, watched: Watched) -> None:
        """Measure this from now on."""
        _refuse_double(watched)
        self.watched = watched
        norms = {channels.layer for channels in watched.subject.normalization}
        part_of = {i: k for k, m in enumerate(watched.optimizers) for i in m.layers}
        layers = watched.subject.layers
        self._kernel = Kernel(
            [
                Spec(
                    parameter,
                    rows=layer.rows > 0,
                    channels=index in norms,
                    part=part_of[index],
                )
                for index, (parameter, layer) in enumerate(
                    zip(watched.parameters, layers, strict=True)
                )
            ]
        )
        self._followers = [
            Follower(moved, watched.subject, self._kernel, part)
            for part, moved in enumerate(watched.optimizers)
        ]

    def _renew(self) -> None:
        """Find out anew what is there to measure."""
        before = self.watched
        self._let_go()
        self._adopt(self._find())
        self._hold()
        self._sink.note(_change(before, self.watched, self.step))

    def _hold(self) -> None:
        moved = self.watched.optimizers
        for thing in (*(m.optimizer for m in moved), *self.watched.parameters):
            _attached[id(thing)] = self

    def _let_go(self) -> None:
        for key in [key for key, watcher in _attached.items() if watcher is self]:
            del _attached[key]

    def _give_up(self, error: Exception) -> None:
        self._round = None
        self.detach()
        self._sink.fail("measuring", error)


@dataclasses.dataclass
class _Round:
    """Steps that are counted as one.

    Attributes:
        measured: per optimizer that was measured, the number of its own step; None
            where this round is not measured.
        stepped: optimizers that have stepped.
        counting: whether histograms are taken.
        seconds: what the hooks have cost.
    """

    measured: dict[int, int] | None = None
    stepped: set[int] = dataclasses.field(default_factory=set)
    counting: bool = False
    seconds: float = 0.0


def _groups(
    followers: Sequence[Follower], measured: Container[int]
) -> Callable[[], tuple[GroupState, ...]]:
    """Reads every group's hyperparameters; unknown where an optimizer did not step."""
    readers: list[Callable[[], GroupState]] = []
    for part, follower in enumerate(followers):
        count = len(follower.moved.optimizer.param_groups)
        readers += follower.groups if part in measured else [_unknown] * count
    return lambda: tuple(read() for read in readers)


def _change(before: Watched, after: Watched, step: int) -> str:
    """What is measured from a step on that was not before, in words."""
    was, now = (w.subject.optimizer.reasons for w in (before, after))
    if [*map(id, before.parameters)] == [*map(id, after.parameters)] and was != now:
        why = "; ".join({reason: None for reason in now if reason})
        return f"only measured from step {step} on, without predictions: {why}"
    old, new = ({x.name for x in w.subject.layers} for w in (before, after))
    changes = [
        f"{what} {', '.join(sorted(names)[:5])}"
        for what, names in (("new:", new - old), ("gone:", old - new))
        if names
    ]
    return (
        f"the optimizer's parameters changed before step {step} "
        f"({'; '.join(changes) or 'replaced under the same names'}); "
        "predictions that follow the run start anew there"
    )


def _unknown() -> GroupState:
    return GroupState(lr=np.nan, weight_decay=np.nan)


def _joined(
    counts: Sequence[Counts], layers: int
) -> Callable[[], npt.NDArray[np.int64]]:
    """Gives the counts of all layers, 0 where an optimizer did not step."""

    def read() -> npt.NDArray[np.int64]:
        joined = np.zeros((2, layers, BINS), np.int64)
        for each in counts:
            joined[:, each.layers] = each.fetch()
        return joined

    return read


def _refuse_double(watched: Watched) -> None:
    for moved in watched.optimizers:
        if id(moved.optimizer) in _attached:
            raise UnwatchableError(
                "this optimizer is being watched already; leave the first "
                "dynoscope.watch block before opening another"
            )
    layers = watched.subject.layers
    for parameter, layer in zip(watched.parameters, layers, strict=True):
        if id(parameter) in _attached:
            raise UnwatchableError(
                f"{layer.name!r} is in two watched optimizers; its steps could "
                f"not be told apart. Pass exclude={layer.name!r} to one watch"
            )
