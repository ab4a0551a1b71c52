"""What the figures are held against."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.benchmarks.figures import Figure

__all__ = ["BARS", "Bar"]


class Bar(NamedTuple):
    """What a figure is to be.

    Attributes:
        words: for the README.
        part: of the suite.
        case: of the figure.
        what: of the figure.
        limit: at most that, None for a figure that is only shown.
        at_least: or at least.
        least: or between this and `limit`.
    """

    words: str
    part: str
    case: str
    what: str
    limit: float | None
    at_least: bool = False
    least: float | None = None

    def find(self, figures: Sequence[Figure]) -> Figure | None:
        """The figure, if it has been measured."""
        its = (f for f in figures if (f.case, f.what) == (self.case, self.what))
        return next(its, None)

    def is_met(self, value: float) -> bool:
        """Whether the figure is what it is to be."""
        if self.limit is None:
            return True
        if self.at_least:
            return value >= self.limit
        return value <= self.limit and (self.least is None or value >= self.least)

    def text(self, unit: str) -> str:
        """The limit in words."""
        if self.limit is None:
            return ""
        limit = f"{self.limit:,g} {unit}".strip()
        if self.least is not None:
            return f"{self.least:g} to {limit}"
        return f"{'at least' if self.at_least else 'at most'} {limit}"


_WALL, _CPU = "wall ratio", "CPU ratio"
_GPT, _CONV = "GPT, every step", "convolutions, every step"
_OWN = {
    "": "own account by added wall time",
    " to the optimizer's step": "own account by time added to the optimizer's step",
}
_DEFAULT = {
    "GPT": "gpt, + neurons, default",
    "convolutions": "conv, + neurons, default",
}
_WATCHED = {
    words: f"{task}, + neurons, every step"
    for words, task in (
        (_GPT, "gpt"),
        (_CONV, "conv"),
        (f"{_CONV}, on one thread", "conv, one thread"),
    )
}

BARS: Final[Sequence[Bar]] = (
    Bar(f"{_GPT}, layers: wall", "overhead", "gpt, layers, every step", _WALL, 1.05),
    Bar(f"{_GPT}, layers: CPU", "overhead", "gpt, layers, every step", _CPU, 1.05),
    Bar(
        f"{_GPT}, layers, in copies of all parameters",
        *("overhead", "gpt, layers, every step", "added wall time", 8),
    ),
    Bar(
        f"{_GPT}, and neurons: wall",
        *("overhead", "gpt, + neurons, every step", _WALL, 1.07),
    ),
    Bar(
        f"{_GPT}, and neurons: CPU",
        *("overhead", "gpt, + neurons, every step", _CPU, 1.07),
    ),
    *(
        Bar(
            f"{_CONV}{threads}{words}: {what.split()[0]}",
            *("overhead", f"{task}, {arm}, every step", what, 1.06),
        )
        for threads, task in (("", "conv"), (", on one thread", "conv, one thread"))
        for words, arm in ((", layers", "layers"), ("", "+ neurons"))
        for what in (_WALL, _CPU)
    ),
    *(
        Bar(f"{words}, by default: {what.split()[0]}", "budget", case, what, 1.015)
        for words, case in _DEFAULT.items()
        for what in (_WALL, _CPU)
    ),
    *(
        Bar(
            f"{words}: time that the run says it took, by wall time added{where}",
            *(part, case, what, 1.2),
            least=0.8,
        )
        for words, part, case in (
            *(
                (f"{words}, by default", "budget", its)
                for words, its in _DEFAULT.items()
            ),
            *((words, "overhead", its) for words, its in _WATCHED.items()),
        )
        for where, what in _OWN.items()
    ),
    *(
        Bar(
            f"{words}: forward and backward alone, wall",
            *("overhead", case, "all but the optimizer's step, wall ratio", None),
        )
        for words, case in _WATCHED.items()
    ),
    *(
        Bar(
            f"{words}: time added by {tool}, by that of dynoscope, {interval}",
            *("overhead", f"{task}, {tool}"),
            f"added time, that of + neurons, {interval} being 1",
            limit=15,
            at_least=True,
        )
        for words, task in (("GPT", "gpt"), ("convolutions", "conv"))
        for tool in ("wandb.watch", "TensorBoard")
        for interval in ("default", "every step")
    ),
    *(
        Bar(
            f"a step that is not measured, {words}: hooks of an optimizer",
            *("hooks", "not measured", what, 2000),
        )
        for words, what in (("every n-th", "every=n"), ("by budget", "budget"))
    ),
    *(
        Bar(
            f"disk: a row of layers, all metrics, {words}",
            *("disk", task, "a row of layers", 100),
        )
        for words, task in (("GPT", "gpt"), ("convolutions", "conv"))
    ),
    Bar(
        "disk: a row of layers, all metrics, 30 M rows",
        *("long_run", "disk", "a row of layers, compact", 100),
    ),
    Bar(
        "writer: rows per second",
        *("long_run", "write", "rows per second", 100_000),
        at_least=True,
    ),
    Bar(
        "30 M rows: open and overview, cold",
        *("long_run", "read, cold", "open and overview", 1500),
    ),
    Bar(
        "30 M rows: the reader's memory",
        *("long_run", "read, cold", "memory at most", 500),
    ),
    Bar(
        "30 M rows: a layer's metric, thinned",
        *("long_run", "read, warm", "series", 150),
    ),
    Bar("30 M rows: what is new", "long_run", "read, warm", "poll", 50),
    Bar(
        "30 M rows: the dashboard, opened with its overview, cold",
        *("dashboard", "cold", "open and overview", 1500),
    ),
    Bar(
        "30 M rows: the dashboard's memory", "dashboard", "cold", "memory at most", 500
    ),
    Bar(
        "30 M rows: the dashboard, a layer's metric",
        *("dashboard", "warm", "one layer, one metric", 150),
    ),
    Bar(
        "the dashboard's tick, 10,000 steps on",
        *("dashboard", "written, short", "tick", 50),
    ),
    Bar(
        "the dashboard's tick, 100,000 steps on",
        *("dashboard", "written, long", "tick", 50),
    ),
    Bar("two runs of 30 M rows: diff", "long_diff", "warm", "time", 20),
    Bar("the same, off the disk", "long_diff", "cold", "time", None),
    Bar("the same: memory", "long_diff", "cold", "memory at most", 2000),
    Bar("`import dynoscope`", "startup", "import dynoscope", "start", 150),
    Bar("`dynoscope --help`", "startup", "dynoscope --help", "start", 500),
    *(
        Bar(
            f"100,000 steps: {what}, second half by first",
            *("growth", "second half by first", what, None),
        )
        for what in ("hooks per step", "writer's CPU per step")
    ),
    Bar(
        "1 M to 100 M parameters: time ~ parameters to the power of",
        *("growth", "slope, log by log", "hooks per step against parameters", None),
    ),
    *(
        Bar(f"a step of {name}, by AdamW's", "optimizers", name, _WALL, limit)
        for name, limit in {
            "Lion": 0.8,
            "NormGD": 1.1,
            "SepNorm": 1.1,
            "OrtSepNorm": 1.1,
            "Rotational AdamW": 2.0,
        }.items()
    ),
)
