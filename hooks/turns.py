"""Layers that take turns: which are measured together, and when it is whose turn."""

import collections
import dataclasses
import operator

from dynoscope.errors import ScheduleError
from dynoscope.hooks.subject import Watched
from dynoscope.schedule import Schedule

__all__ = ["Turns"]


class Turns:
    """Deals out the layers to turns, and says whose turn it is.

    Where every n-th step is measured its number tells the turn, so that a training that
    is resumed goes on as if it had never stopped; else measured steps are counted. It
    is the same turn on all processes.

    Args:
        count: how many turns there are; 1 measures all layers at each measured step.
        every: interval of measured steps, or what else tells which are.

    Raises:
        ScheduleError: there cannot be so many turns.
    """

    def __init__(self, count: int = 1, every: int | Schedule | None = None) -> None:
        try:
            self._most = operator.index(count)
        except TypeError:
            self._most = 0
        if isinstance(count, bool) or self._most < 1:
            raise ScheduleError(
                f"turns={count!r} is no number of turns; turns=4 measures a fourth of "
                "the layers at each measured step, turns=1 all of them"
            )
        self._every = None if every is None or callable(every) else every
        self._begun, self._count = 0, 1
        self._turn_of: dict[str, int] = {}

    def dealt(self, watched: Watched) -> Watched:
        """What is watched, each layer with its turn; layers of before keep theirs.

        Turns are of about as many bytes each, of each optimizer and of all. There are
        no more of them than layers.
        """
        layers = list(watched.subject.layers)
        if self._most == 1:
            return watched
        sizes = [
            layer.numel * parameter.element_size()
            for layer, parameter in zip(layers, watched.parameters, strict=True)
        ]
        self._count = min(self._most, len(layers))
        loads: collections.Counter[tuple[int, ...]] = collections.Counter()

        def lightest(part: int) -> int:
            turns = range(self._count)
            return min(turns, key=lambda turn: (loads[part, turn], loads[turn,], turn))

        for part, moved in enumerate(watched.optimizers):
            dealt = [i for i in moved.layers if layers[i].name in self._turn_of]
            fresh = sorted(set(moved.layers) - set(dealt), key=lambda i: (-sizes[i], i))
            for i in [*dealt, *fresh]:
                turn = self._turn_of.setdefault(layers[i].name, lightest(part))
                loads[part, turn] += sizes[i]
                loads[turn,] += sizes[i]
                layers[i] = dataclasses.replace(layers[i], turn=turn)
        subject = dataclasses.replace(watched.subject, layers=tuple(layers))
        return dataclasses.replace(watched, subject=subject)

    def at(self, step: int) -> int:
        """Whose turn it is at a measured step, which begins now."""
        number, self._begun = self._begun, self._begun + 1
        if self._every is not None:
            number = step // self._every
        return number % self._count
