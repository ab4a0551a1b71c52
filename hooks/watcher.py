"""The two hooks around each optimizer's step."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch.utils.hooks import RemovableHandle

from dynoscope.errors import UnwatchableError
from dynoscope.hooks.follower import Follower, has_closure, is_nested_step
from dynoscope.hooks.processes import ALONE, Processes
from dynoscope.hooks.rounds import Round, measurement_of
from dynoscope.hooks.subject import Watched
from dynoscope.measurement import Measurement
from dynoscope.metrics.sums import Counted, GroupError, Kernel, Spec
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
        processes: those that train the same model.

    Attributes:
        watched: what is measured.
        processes: those that train the same model.
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
        processes: Processes = ALONE,
    ) -> None:
        self._find, self._schedule, self.processes = find, schedule, processes
        self._histograms, self._histogram_due = histograms, log_spaced()
        self._handles: list[RemovableHandle] = []
        self.step = self.skipped = 0
        self._adopt(find())
        count = len(self.watched.optimizers)
        self._depths, self._own_steps = [0] * count, [0] * count
        self._round: Round | None = None
        self._failed = False

    def start_at(self, step: int, own_steps: Sequence[int] = ()) -> None:
        """Count on from a step that a run has got to before.

        Args:
            step: rounds that have ended.
            own_steps: per optimizer, steps that it has taken; as many as rounds where
                not given.
        """
        self.step = step
        self._own_steps = list(own_steps) or [step] * len(self._own_steps)

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
        last, self._round = self._round, None
        if self._handles and last is not None and last.stepped:
            if self.processes.sharded:  # the others may be gone
                self.step += 1
                self.skipped += bool(last.measured)
            else:
                try:
                    self._end_round(last)
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
        self._guarded(lambda: self._open_round(part))
        current = self._round
        if current is not None and current.measured is not None:
            start = time.perf_counter()
            stale, count = has_closure(args, kwargs), current.counting
            follower = self._followers[part]
            self._guarded(
                lambda: follower.before(stale, count=count, failed=self._failed)
            )
            current.seconds += time.perf_counter() - start

    def _after(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> None:
        self._depths[part] -= 1
        if self._depths[part]:
            return
        current = self._round or Round()
        if current.measured is not None:
            start = time.perf_counter()
            follower = self._followers[part]
            self._guarded(lambda: follower.after(failed=self._failed))
            current.measured[part] = self._own_steps[part]
            current.seconds += time.perf_counter() - start
        current.stepped.add(part)
        self._own_steps[part] += 1
        if self._handles and len(current.stepped) == len(self._depths):
            self._guarded(lambda: self._end_round(current))
        if self._after_step is not None:
            self._after_step()

    def _open_round(self, part: int) -> None:
        """Have a round that this optimizer's next step belongs to."""
        current = self._round
        if current is not None and part in current.stepped:
            self._guarded(lambda: self._end_round(current))
        elif current is not None and current.stepped:
            return
        if not self._handles:
            return
        self._round = Round()
        if not self.processes.measures or not self._schedule(self.step):
            return
        # Whether there is room, the first process alone can tell: see `_end_round`.
        if self.processes.sharded or self._sink.has_room():
            self._begin(self._round)
        else:
            self.skipped += 1

    def _begin(self, opened: Round) -> None:
        opened.measured = {}
        opened.counting = self._histograms and self._histogram_due(self.step)
        if self.processes.group is not None and not self.processes.sharded:
            self._refuse_late_shards()
        if not all(follower.is_current() for follower in self._followers):
            self._renew()

    def _end_round(self, ended: Round) -> None:
        self._round = None
        step, self.step = self.step, self.step + 1
        if not ended.measured:
            return
        start = time.perf_counter()
        kernel, counted = self._kernel, self._counted(ended)
        fetch = kernel.ship(failed=self._failed)
        if self._is_wanted():
            measurement = measurement_of(
                ended,
                self.watched.subject,
                self._followers,
                fetch,
                kernel.nbytes,
                counted,
                step=step,
                skipped=self.skipped,
            )
            spent = ended.seconds + time.perf_counter() - start
            self._sink.put(dataclasses.replace(measurement, hook_seconds=spent))
            self.skipped = 0
        for follower in self._followers:
            follower.grads = []  # the training may want to free them

    def _counted(self, ended: Round) -> Sequence[Counted]:
        """Histograms of the round, if it has any."""
        if not (ended.counting and ended.measured):
            return []
        counted = [c for part in ended.measured for c in self._followers[part].counted]
        try:
            return self._kernel.add_up(counted, failed=self._failed)
        except GroupError:
            raise
        except Exception as error:  # there is still the round's `ship` to come
            self._give_up(error)
            return []

    def _is_wanted(self) -> bool:
        """Whether what was shipped is to be recorded, by this process."""
        if not self.processes.sharded:
            return True
        if self._failed or not self.processes.writes:
            return False
        has_room = self._sink.has_room()
        self.skipped += not has_room
        return has_room

    def _adopt(self, watched: Watched) -> None:
        """Measure this from now on."""
        _refuse_double(watched)
        self.watched = watched
        norms = {channels.layer for channels in watched.subject.normalization}
        part_of = {i: k for k, m in enumerate(watched.optimizers) for i in m.layers}
        layers = watched.subject.layers
        self.processes.check(watched.parameters, [layer.name for layer in layers])
        self._followers: list[Follower] = []
        if not self.processes.measures:
            return
        specs = [
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
        self._kernel = Kernel(specs, self.processes.sharing)
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

    def _refuse_late_shards(self) -> None:
        if self.watched.is_sharded_since():
            raise UnwatchableError(
                "the model was sharded after it was given to dynoscope.watch: call "
                "fully_shard or parallelize_module first, then make the optimizer, "
                "then watch them"
            )

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do a piece of the measuring; an error in it is not the training's."""
        try:
            work()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if self.processes.sharded and not isinstance(error, GroupError):
            # Where all measure together, the others would wait for this process.
            self._failed = True
        else:
            self._round = None
            self.detach()
        self._sink.fail("measuring", error)


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
