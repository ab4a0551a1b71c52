"""The two hooks around each optimizer's step."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar

import torch
from torch.utils.hooks import RemovableHandle

from dynoscope.hooks.changes import in_words
from dynoscope.hooks.closure import Arguments, notifying
from dynoscope.hooks.device_clock import DeviceClock, clock_of
from dynoscope.hooks.follower import Follower, followers_of, is_nested_step
from dynoscope.hooks.graphs import CAPTURED, is_capturing
from dynoscope.hooks.pacing import Pacing
from dynoscope.hooks.processes import ALONE, Processes
from dynoscope.hooks.registry import hold, let_go, refuse_double
from dynoscope.hooks.rounds import Round, measurement_of
from dynoscope.hooks.scaler import only_scalers
from dynoscope.hooks.sink import News, Sink
from dynoscope.hooks.subject import Watched
from dynoscope.hooks.tracing import untraced, untraced_within
from dynoscope.hooks.turns import Turns
from dynoscope.metrics.sums import Counted, GroupError
from dynoscope.schedule import Schedule, log_spaced

__all__ = ["Watcher"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

PATIENCE: Final = 3
"""Measurements that fail in a row before no more are taken."""


class Watcher:
    """Measures the steps of one or several optimizers, from `attach` to `detach`.

    Steps are counted in rounds: in a round each optimizer steps once at most. With one
    optimizer every step is a round; of a GAN's two, that step in turn, both steps are.

    Args:
        find: finds what to measure; asked again when an optimizer has other parameters.
        schedule: which rounds to measure.
        histograms: whether to count what weights and gradients are, too.
        processes: those that train the same model.
        turns: deals out layers that take turns.

    Attributes:
        watched: what is measured.
        processes: those that train the same model.
        step: number of rounds that have ended, those of a resumed run's past included.
        skipped: measurements given up since the last one that was put.

    Raises:
        UnwatchableError: there is nothing to measure, or it is being watched already.
    """

    def __init__(
        self,
        find: Callable[[], Watched],
        schedule: Schedule,
        *,
        histograms: bool = False,
        processes: Processes = ALONE,
        turns: Turns | None = None,
    ) -> None:
        self._find, self.processes, self._turns = find, processes, turns or Turns()
        self._histograms, self._histogram_due = histograms, log_spaced()
        self._handles: list[RemovableHandle] = []
        self.step = self.skipped = self._failures = 0
        self._adopt(find())
        count = len(self.watched.optimizers)
        self._pacing = Pacing(schedule, [m.optimizer for m in self.watched.optimizers])
        self._depths, self._own_steps, self._first_steps = (
            [0] * count for _ in range(3)
        )
        self._everyone = (1 << count) - 1
        self._round: Round | None = None
        self._failed = self._is_off = False

    def start_at(self, step: int, own_steps: Sequence[int] = ()) -> None:
        """Count on from a step of the run, and of each optimizer (none: as many)."""
        self.step = step
        self._own_steps = list(own_steps) or [step] * len(self._own_steps)
        self._first_steps = list(self._own_steps)

    @property
    def taken(self) -> int:
        """Rounds in which an optimizer has stepped: the one that is open counts."""
        return self.step + bool(self._round and self._round.stepped)

    @property
    def unstepped(self) -> list[int]:
        """Optimizers that have taken no step yet."""
        pairs = zip(self._own_steps, self._first_steps, strict=True)
        return [part for part, (own, first) in enumerate(pairs) if own == first]

    def attach(self, sink: Sink, news: News | None = None) -> None:
        """Register the hooks; measurements go to `sink`.

        Args:
            sink: where measurements go.
            news: delivered after each step, measured or not, where there is any. What
                that raises is meant for the user, and comes out of the step.
        """
        self._sink, self._news = sink, news
        hold(self.watched, self)
        for part, moved in enumerate(self.watched.optimizers):
            optimizer, hook = moved.optimizer, functools.partial
            self._handles += [
                optimizer.register_step_pre_hook(hook(self._before, part)),
                optimizer.register_step_post_hook(hook(self._after, part)),
            ]

    def detach(self) -> None:
        """Remove the hooks, end an open round; calling it again does nothing."""
        is_attached = bool(self._handles)
        self.drop_hooks()
        let_go(self)
        last, self._round = self._round, None
        if is_attached:
            self._finish(last or Round())

    def drop_hooks(self) -> None:
        """Remove the hooks, and leave the rest as it is."""
        while self._handles:
            self._handles.pop().remove()

    def _finish(self, last: Round) -> None:
        """End the last round, and say what scalers have come to after it."""
        if last.stepped and self.processes.sharded:  # the others may be gone
            self.step += 1
            self.skipped += bool(last.measured)
        elif last.stepped:
            self._end_round(last)
        self._try(last, self._put_scalers)

    def _put_scalers(self) -> None:
        scalers = tuple(each.scaling.read_last() for each in self._followers)
        if any(scalers):
            self._sink.put(only_scalers(self.watched.subject, self.step, scalers))

    @untraced
    def _before(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> Arguments | None:
        if self._depths[part] and is_nested_step(optimizer):
            self._depths[part] += 1  # a subclass's step has called its parent's
            return None
        self._depths[part] = 1
        current = self._round_of(part)
        if current.measured is None and not current.due:
            return None
        return self._take_before(part, current, time.perf_counter(), args, kwargs)

    @untraced_within
    def _take_before(
        self, part: int, current: Round, start: float, args: Any, kwargs: Any
    ) -> Arguments | None:
        with current.since(start):
            if current.due:
                self._open(current)
                if current.measured is None:
                    return None
            take, count = self._followers[part], current.counting
            notify = functools.partial(self._at_gradients, take, current)
            changed = self._try(current, notifying, (args, kwargs), notify)
            late, turn, failed = changed is not None, current.turn, self._failed
            self._try(current, take.before, late, turn, count=count, failed=failed)
            return changed

    def _at_gradients(self, take: Follower, current: Round, again: bool) -> None:
        """Inside a step whose closure has computed gradients, or is to do so again."""
        if self._round is current and current.measured is not None:
            count, failed = current.counting, self._failed
            with current.since(time.perf_counter()):
                if again:
                    self._try(current, take.keep_gradients)
                else:
                    self._try(current, take.at_gradients, count=count, failed=failed)

    @untraced
    def _after(
        self, part: int, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any
    ) -> None:
        self._depths[part] -= 1
        if self._depths[part]:
            return
        current = self._round or Round()
        try:
            if current.measured is not None:
                self._take_after(part, current, time.perf_counter())
        finally:  # the step was taken, even if Ctrl-C comes at this very moment
            current.stepped |= 1 << part
            self._own_steps[part] += 1
        if current.stepped == self._everyone:
            self._end_round(current)
        if self._news is not None and self._news.waiting:
            untraced_within(self._news.deliver)()

    @untraced_within
    def _take_after(self, part: int, current: Round, start: float) -> None:
        with current.since(start):
            self._try(current, self._followers[part].after, failed=self._failed)
            if current.measured is not None:
                current.measured[part] = self._own_steps[part]

    def _try(
        self, current: Round, work: Callable[_P, _T], *args: _P.args, **kw: _P.kwargs
    ) -> _T | None:
        """Take a device's time; an error costs the measurement, not the training."""
        clock, found = self._clock, None
        try:
            if clock is not None:
                clock.start()
            found = work(*args, **kw)
            if clock is not None:
                clock.stop()
        except Exception as error:
            self._stumble(current, error)
        return found

    def _stumble(self, current: Round, error: Exception) -> None:
        if self.processes.sharded and not isinstance(error, GroupError):
            # Where all measure together, the others would wait for this process.
            self._failed = True
        else:
            current.measured = None
            self.skipped += 1
            self._failures += 1
            self._is_off = self._failures >= PATIENCE or isinstance(error, GroupError)
        self._sink.fail("measuring failed", error)
        if self._is_off:
            self._sink.note("measuring fails again and again, and is off from now on")

    @untraced
    def _round_of(self, part: int) -> Round:
        """The round that this optimizer's next step belongs to."""
        current = self._round
        if current is not None:
            if current.stepped >> part & 1:
                self._end_round(current)
            elif current.stepped:
                return current
        self._round = opened = Round()
        try:
            opened.due = self._pacing.is_due(self.step) and bool(self._followers)
        except Exception as error:
            self._stumble(opened, error)
        return opened

    def _open(self, opened: Round) -> None:
        """Measure a round that is due, if it can be."""
        opened.due = False
        if is_capturing():
            self._sink.note(CAPTURED)
        # Whether there is room, the first process alone can tell: see `_is_wanted`.
        elif self._is_off or not (self.processes.sharded or self._sink.has_room()):
            self.skipped += 1
        else:
            self._try(opened, self._begin, opened)

    def _begin(self, opened: Round) -> None:
        opened.measured, opened.turn = {}, self._turns.at(self.step)
        opened.counting = self._histograms and self._histogram_due(self.step)
        if self.processes.group is not None and not self.processes.sharded:
            self.watched.refuse_late_shards()
        if not all(follower.is_current() for follower in self._followers):
            self._renew()

    @untraced
    def _end_round(self, ended: Round) -> None:
        self._round = None
        self.step += 1
        if ended.measured:
            self._put(ended, self.step - 1, time.perf_counter())

    @untraced_within
    def _put(self, ended: Round, step: int, start: float) -> None:
        self._try(ended, self._ship, ended, step, start)

    def _ship(self, ended: Round, step: int, start: float) -> None:
        kernel, counted = self._kernel, self._counted(ended)
        wish = self._pacing.interval if self.processes.sharded else 1
        fetch = kernel.ship(failed=self._failed, wish=wish)
        device = 0.0 if self._clock is None else self._clock.read()
        if self._is_wanted():
            subject, followers = self.watched.subject, self._followers
            measurement = measurement_of(
                *(ended, subject, followers, fetch, kernel.nbytes, counted),
                step=step,
                skipped=self.skipped,
                seconds=ended.seconds + time.perf_counter() - start,
                device_seconds=device,
            )
            self._sink.put(measurement)
            self.skipped = self._failures = 0
        spent = ended.seconds + time.perf_counter() - start
        self._pacing.spent(step, max(spent, device), self._sink.work, kernel.agreed)
        for follower in self._followers:
            follower.grads = []  # the training may want to free them

    def _counted(self, ended: Round) -> Sequence[Counted]:
        """Histograms of the round, if it has any."""
        if not (ended.counting and ended.measured):
            return []
        counted = [c for part in ended.measured for c in self._followers[part].counted]
        try:
            return self._kernel.add_up(counted, failed=self._failed)
        except Exception as error:
            if isinstance(error, GroupError) or not self.processes.sharded:
                raise
            self._stumble(ended, error)  # there is still the round's `ship` to come
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
        refuse_double(watched)
        self.watched = watched = self._turns.dealt(watched)
        layers = watched.subject.layers
        self.processes.check(watched.parameters, [layer.name for layer in layers])
        self._followers: list[Follower] = []
        self._clock: DeviceClock | None = None
        if self.processes.measures:
            sharing = self.processes.sharing
            self._kernel, self._followers = followers_of(watched, sharing)
            self._clock = clock_of(p.device for p in watched.parameters)

    def _renew(self) -> None:
        """Find out anew what is there to measure."""
        before = self.watched
        let_go(self)
        try:
            self._adopt(self._find())
        finally:
            hold(self.watched, self)
        self._sink.note(in_words(before, self.watched, self.step))
