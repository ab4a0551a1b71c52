"""The two hooks around each optimizer's step."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.hooks import RemovableHandle

from dynoscope.hooks.follower import Counts, Follower, has_closure, is_nested_step
from dynoscope.hooks.registry import hold, let_go, refuse_double
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import GroupState, Measurement
from dynoscope.metrics.histograms import BINS
from dynoscope.metrics.sums import Kernel, Spec
from dynoscope.schedule import Schedule, log_spaced

__all__ = ["Sink", "Watcher"]

PATIENCE: Final = 3
"""Measurements that fail in a row before no more are taken."""


class Sink(Protocol):
    """Where measurements go."""

    def has_room(self) -> bool:
        """Whether another measurement can be taken now."""

    def put(self, measurement: Measurement) -> None:
        """Take a measurement; never blocks."""

    def note(self, problem: str) -> None:
        """Note what the user should know, once."""

    def fail(self, problem: str, error: Exception) -> None:
        """Note an error of dynoscope's own; raise it where that is wanted."""


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
        self.step = self._first = self.skipped = self._failures = 0
        self._adopt(find())
        count = len(self.watched.optimizers)
        self._depths, self._own_steps = [0] * count, [0] * count
        self._round: _Round | None = None

    def start_at(self, step: int) -> None:
        """Count on from a step that a run has got to before."""
        self.step = self._first = step
        self._own_steps = [step] * len(self._own_steps)

    @property
    def unstepped(self) -> list[int]:
        """Optimizers that have taken no step yet."""
        return [k for k, own in enumerate(self._own_steps) if own == self._first]

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
        hold(self.watched, self)
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
        is_attached = bool(self._handles)
        self.drop_hooks()
        let_go(self)
        if is_attached and self._round is not None and self._round.stepped:
            self._end_round(self._round)

    def drop_hooks(self) -> None:
        """Remove the hooks, and leave the rest as it is."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> None:
        if self._depths[part] and is_nested_step(optimizer):
            self._depths[part] += 1  # a subclass's step has called its parent's
            return
        self._depths[part] = 1
        current = self._round_of(part)
        if current.measured is not None:
            with self._measuring(current):
                follower = self._followers[part]
                follower.before(has_closure(args, kwargs), count=current.counting)

    def _after(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> None:
        self._depths[part] -= 1
        if self._depths[part]:
            return
        current = self._round or _Round()
        try:
            if current.measured is not None:
                with self._measuring(current):
                    self._followers[part].after()
                    current.measured[part] = self._own_steps[part]
        finally:  # the step was taken, even if Ctrl-C comes at this very moment
            current.stepped.add(part)
            self._own_steps[part] += 1
        if len(current.stepped) == len(self._depths):
            self._end_round(current)
        if self._after_step is not None:
            self._after_step()

    @contextlib.contextmanager
    def _measuring(self, current: "_Round") -> Iterator[None]:
        """Take the time; an error costs the round's measurement, not the training."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            current.measured = None
            self._stumble(error)
        current.seconds += time.perf_counter() - start

    def _stumble(self, error: Exception) -> None:
        self.skipped += 1
        self._failures += 1
        self._sink.fail("measuring failed", error)
        if self._failures == PATIENCE:
            self._sink.note(
                f"measuring failed {PATIENCE} times in a row and is off from now on"
            )

    def _round_of(self, part: int) -> "_Round":
        """The round that this optimizer's next step belongs to."""
        current = self._round
        if current is not None and part in current.stepped:
            self._end_round(current)
        elif current is not None and current.stepped:
            return current
        self._round = opened = _Round()
        if self._is_due():
            with self._measuring(opened):
                self._begin(opened)
        return opened

    def _is_due(self) -> bool:
        """Whether the next round is to be measured, and can be."""
        try:
            due = self._schedule(self.step)
        except Exception as error:
            self._stumble(error)
            return False
        if due and (self._failures >= PATIENCE or not self._sink.has_room()):
            self.skipped += 1
            return False
        return due

    def _begin(self, opened: "_Round") -> None:
        if not all(moved.is_current() for moved in self.watched.optimizers):
            self._renew()
        opened.measured = {}
        opened.counting = self._histograms and self._histogram_due(self.step)

    def _end_round(self, ended: "_Round") -> None:
        self._round = None
        step, self.step = self.step, self.step + 1
        if ended.measured:
            with self._measuring(ended):
                self._ship(ended, step, ended.measured)
                self.skipped = self._failures = 0

    def _ship(self, ended: "_Round", step: int, measured: dict[int, int]) -> None:
        start = time.perf_counter()
        fetch = self._kernel.ship()
        followers = self._followers
        stepped = [f for part, f in enumerate(followers) if part in measured]
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
                own_steps=tuple(map(measured.get, range(len(followers)))),
                wall_time=time.time(),
                groups=_groups(followers, measured),
                has_grad=has_grad,
                limits=limits,
                fetch=fetch,
                nbytes=self._kernel.nbytes + sum(c.nbytes for c in counts),
                hook_seconds=ended.seconds + time.perf_counter() - start,
                skipped=self.skipped,
                histograms=_joined(counts, layers) if counts else None,
            )
        )

    def _adopt(self, watched: Watched) -> None:
        """Measure this from now on."""
        refuse_double(watched)
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
        """Find out anew what is there to measure: parameters came or went."""
        before = {layer.name for layer in self.watched.subject.layers}
        let_go(self)
        try:
            self._adopt(self._find())
        finally:
            hold(self.watched, self)
        after = {layer.name for layer in self.watched.subject.layers}
        changes = [
            f"{what} {', '.join(sorted(names)[:5])}"
            for what, names in (("new:", after - before), ("gone:", before - after))
            if names
        ]
        self._sink.note(
            f"the optimizer's parameters changed before step {self.step} "
            f"({'; '.join(changes) or 'replaced under the same names'}); "
            "predictions that follow the run start anew there"
        )


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
