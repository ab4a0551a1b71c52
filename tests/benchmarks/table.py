"""The README's section of figures, made from the results alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.benchmarks import arms, machine
from tests.benchmarks.bars import BARS
from tests.benchmarks.budget import ARM
from tests.benchmarks.figures import Figure, load
from tests.benchmarks.overhead import less_added
from tests.benchmarks.tasks import TASKS

__all__ = ["README", "put", "section"]

README: Final = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- bench -->\n", "<!-- /bench -->\n"

PLOTS: Final = {
    "overhead": "What watching costs, in every setting and beside other tools",
    "growth": "What that is over 100,000 steps, and from 1 M to 100 M parameters",
}
HEADINGS: Final = {"gpt": "GPT, 10.9M", "conv": "12 conv + BatchNorm"}


def section(results: Path) -> str:
    """Markdown: what it was measured on, the grid, the bars, the plots."""
    parts = {name: load(results, name) for name in machine.load(results)}
    # The noise is that of the arms that most are held against.
    grid = [*parts.get("budget", []), *parts.get("overhead", [])]
    for task in TASKS:  # the default has long turns, apart from the other tools
        parts["overhead"] = [*parts.get("overhead", []), *less_added(task, ARM, grid)]
    facts = machine.load(results)
    if not facts:
        return "Nothing has been measured yet.\n"
    networks = [f"{HEADINGS[name]}: {task.words}." for name, task in TASKS.items()]
    blocks = [[*_measured_on(facts), *networks], _grid(grid), _bars(parts)]
    blocks += [
        [f"![{words}](tests/benchmarks/results/{name}.svg)"]
        for name, words in PLOTS.items()
        if (results / f"{name}.svg").exists()
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def put(results: Path, readme: Path = README) -> None:
    """Write the section into the README."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{readme.name} has no {BEGIN.strip()} ... {END.strip()}")
    readme.write_text(before + begin + section(results) + end + after, encoding="utf-8")


def _measured_on(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each machine, with the parts that were measured there."""
    by_machine: dict[str, list[str]] = {}
    for part, its in facts.items():
        packages = ", ".join(f"{n} {its[n]}" for n in machine.PACKAGES if n in its)
        words = (
            f"{its['cpu']}, {its['cores']} cores, {its['threads']} threads, "
            f"{its['memory_gb']} GB, {its['system']}, Python {its['python']}, "
            f"{packages}"
        )
        if its["quick"]:
            words += "; a smoke test on a busy machine, **not a measurement**"
        by_machine.setdefault(words, []).append(part)
    lines = []
    for words, parts in by_machine.items():
        which = f" ({', '.join(parts)})" if len(by_machine) > 1 else ""
        loads = [facts[part]["load_at_start"] for part in parts]
        lines.append(
            f"Measured{which} on {words}. Load at the start of a part: "
            f"{min(loads):g} to {max(loads):g}."
        )
    return lines


def _grid(figures: Sequence[Figure]) -> list[str]:
    """Wall and CPU ratios of every arm, with errors, or else quartiles in brackets."""
    found = {(figure.case, figure.what): figure for figure in figures}
    heads = [
        f"{name}, {what}" for name in HEADINGS.values() for what in ("wall", "CPU")
    ]
    lines = [_row(["relative to no tool", *heads]), "|---" * (len(heads) + 1) + "|"]
    for arm in arms.ARMS:
        cells = [
            _ratio(found.get((f"{task}, {arm}", f"{what} ratio")))
            for task in HEADINGS
            for what in ("wall", "CPU")
        ]
        if any(cells):
            lines.append(_row([_words(arm), *cells]))
    return lines if len(lines) > 2 else []


def _words(arm: str) -> str:
    others = {
        "bare": "nothing: the noise",
        "wandb.watch": '`wandb.watch(log="all", log_freq=1)`, offline',
        "TensorBoard": "TensorBoard, histograms of weights and gradients, every step",
    }
    return others.get(arm, f"dynoscope, {arm}")


def _bars(parts: Mapping[str, Sequence[Figure]]) -> list[str]:
    """Every figure that has been measured, beside its bar."""
    lines = [
        _row(["what", "bar", "measured", "standard error, or quartiles"]),
        "|---|---|---|---|",
    ]
    for bar in BARS:
        figure = bar.find(parts.get(bar.part, []))
        if figure is not None:
            unit = figure.unit
            low, value, high = (
                _number(number, unit)
                for number in (figure.low, figure.value, figure.high)
            )
            value = f"{value} {unit}".strip()
            if not bar.is_met(figure.value):
                value = f"**{value}, missed**"
            between = f"{low} to {high}" if figure.times > 1 else "once"
            if figure.error is not None:
                between = f"± {_number(figure.error, unit)}"
            lines.append(_row([bar.words, bar.text(unit), value, between]))
    return lines


def _ratio(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.error is None:
        return f"{figure.value:.3f} ({figure.low:.2f}-{figure.high:.2f})"
    return f"{figure.value:.3f} ± {figure.error:.3f}"


def _number(value: float, unit: str) -> str:
    """Three decimals of a ratio, else three digits, but all of a large number."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 10 and not unit else f"{value:.3g}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
