"""Plots of the results, small and for light and dark pages."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks import arms
from tests.benchmarks.figures import Figure, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

__all__ = ["draw"]

INK: Final = "#123456"
"""Stands for the page's own colour of text."""

STYLE: Final = (
    "<style>svg{color:#24292f}"
    "@media(prefers-color-scheme:dark){svg{color:#d1d7e0}}</style>"
)

COLOURS: Final = {"wall": "#3987e5", "CPU": "#e0703b"}

RC: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "dynoscope",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "savefig.transparent": True,
    "savefig.bbox": "tight",
}


def draw(results: Path) -> None:
    """Draw what there are results for."""
    import matplotlib as mpl

    mpl.use("svg")
    with mpl.rc_context(RC):
        grid = [*load(results, "budget"), *load(results, "overhead")]
        if grid:
            _save(_overhead(grid), results / "overhead.svg")
        if growth := load(results, "growth"):
            _save(_growth(growth), results / "growth.svg")


def _overhead(figures: Sequence[Figure]) -> "Drawing":
    """Ratios as dots, with their standard errors."""
    from matplotlib import pyplot

    found = {(figure.case, figure.what): figure for figure in figures}
    order = [arm for arm in reversed(list(arms.ARMS)) if arm != "bare"]
    shown = [arm for arm in order if (f"conv, {arm}", "wall ratio") in found]
    drawing, sides = pyplot.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    for axes, (task, title) in zip(
        sides, {"gpt": "GPT, 10.9M", "conv": "12 conv + BatchNorm"}.items(), strict=True
    ):
        for offset, (what, colour) in zip((0.15, -0.15), COLOURS.items(), strict=True):
            for row, arm in enumerate(shown):
                figure = found.get((f"{task}, {arm}", f"{what} ratio"))
                if figure is not None:
                    _dot(axes, figure, row + offset, colour)
            axes.plot([], [], "o", color=colour, ms=4, label=what)
        axes.axvline(1, color=INK, lw=0.8, alpha=0.5)
        axes.set(title=title, xlabel="time of a step, unwatched = 1", xscale="log")
        ticks = [t for t in (1, 1.5, 2, 3, 4, 6, 9, 14) if t <= axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    sides[0].set_yticks(range(len(shown)), shown)
    sides[1].legend(loc="upper right", title=None)
    drawing.tight_layout()
    return drawing


def _dot(axes: "Axes", figure: Figure, y: float, colour: str) -> None:
    axes.plot(figure.between, [y, y], color=colour, lw=1.5, alpha=0.5)
    axes.plot(figure.value, y, "o", color=colour, ms=4)


def _growth(figures: Sequence[Figure]) -> "Drawing":
    """Hooks and writer by tenth of a long training; hooks by parameters, log by log."""
    from matplotlib import pyplot

    drawing, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3))
    lines = {"hooks per step": "wall", "writer's CPU per step": "CPU"}
    for what, colour in lines.items():
        its = [f for f in figures if f.what == what and f.case.startswith("steps")]
        x = [int(f.case.split(" to ")[1].replace(",", "")) for f in its]
        y = [f.value for f in its]
        left.plot(x, y, "o-", color=COLOURS[colour], ms=4, label=what)
    left.set(title="a tiny network, every step", xlabel="steps", ylabel="us", ylim=0)
    left.xaxis.set_major_formatter(lambda tick, _: f"{tick / 1e3:g}k")
    left.legend()
    its = [f for f in figures if f.case.endswith("M parameters") and f.unit == "us"]
    x = [int(f.case.split("M")[0]) for f in its]
    y = [f.value / 1e3 for f in its]
    right.loglog(x, y, "o", color=COLOURS["wall"], ms=4, label="hooks per step")
    slope = next(f.value for f in figures if f.case.startswith("slope"))
    middle = (y[0] * y[-1]) ** 0.5, (x[0] * x[-1]) ** 0.5
    line = [middle[0] * (each / middle[1]) ** slope for each in x]
    label = f"parameters to the power of {slope:.2f}"
    right.plot(x, line, color=INK, lw=1, alpha=0.6, label=label)
    right.set(title="by size, every step", xlabel="million parameters", ylabel="ms")
    right.set_xticks(x, map(str, x))
    right.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
    right.minorticks_off()
    right.legend()
    drawing.tight_layout()
    return drawing


def _save(drawing: "Drawing", path: Path) -> None:
    """As SVG whose ink is that of the page; the same figures give the same bytes."""
    from matplotlib import pyplot

    drawing.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(drawing)
    text = path.read_text(encoding="utf-8").replace(INK, "currentColor")
    text = re.sub(r"(<svg[^>]*>)", rf"\1{STYLE}", text, count=1)
    text = re.sub(r" <metadata>.*?</metadata>\n", "", text, flags=re.S)
    path.write_text(text, encoding="utf-8")
