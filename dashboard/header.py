"""The selected runs in words: what they are, how they stand, what went wrong."""

from typing import Any

from dash import html

from dynoscope.dashboard.figures import number
from dynoscope.dashboard.plots import States
from dynoscope.dashboard.state import RunState
from dynoscope.dashboard.store import Entry
from dynoscope.dashboard.theme import Scheme
from dynoscope.dashboard.track import POINTS
from dynoscope.schema.cost import cost_of

__all__ = ["run_header", "unreadable_header"]


def run_header(states: States, entries: dict[str, Entry], scheme: Scheme) -> list[Any]:
    """One strip per selected run."""
    return [
        _strip(key, state, entries[key], scheme.run_color(position))
        for position, (key, state) in enumerate(states.items())
        if key in entries
    ]


def unreadable_header(entry: Entry) -> Any:
    """Why a run cannot be shown."""
    return _notice(f"{entry.key} cannot be read", [entry.row["note"]], "bad")


def _strip(key: str, state: RunState, entry: Entry, color: str) -> Any:
    row = entry.row
    title = html.Div(
        [
            html.Span(className="swatch", style={"background": color}),
            html.H2(key, className="run-name"),
            html.Span(row["status"], className=f"status-chip {row['status']}"),
        ],
        className="head",
    )
    children = [title, html.Div(_facts(state, row), className="facts")]
    if row["status"] == "failed":
        children.append(
            _notice("Training ended with an exception", [row["note"]], "bad")
        )
    problems = [*row["problems"], *_damage(state, row)]
    if problems:
        children.append(_notice("What went wrong besides training", problems, "odd"))
    return html.Div(children, className="strip")


def _damage(state: RunState, row: dict[str, Any]) -> list[str]:
    # While a journal is being written its last batch may be incomplete.
    return [] if row["status"] == "running" else state.damage


def _facts(state: RunState, row: dict[str, Any]) -> list[Any]:
    manifest = state.run.manifest
    progress = manifest["progress"]
    parameters = manifest["model"]["parameters"]
    facts = [
        _fact("model", f"{row['model']}, {number(parameters)} parameters"),
        _fact("optimizer", f"{row['optimizer']}{_hyperparameters(manifest)}"),
        _fact("steps measured", f"{progress['measured']:,}"),
        _fact("lost or skipped", _lost(progress)),
        _fact("dynoscope's own cost", _cost(manifest)),
    ]
    if progress["measured"] > POINTS:
        said = "mean, least and most of many steps; zoom in for every step"
        facts.append(_fact("shown", said))
    return facts


def _fact(name: str, value: str) -> Any:
    return html.Div([html.Span(name), html.Strong(value)], className="fact")


def _hyperparameters(manifest: dict[str, Any]) -> str:
    """Learning rate and weight decay, where all groups agree."""
    groups = manifest["optimizer"]["hyperparameters"]
    words = []
    for name in ("lr", "weight_decay"):
        # A scheduler has changed lr already when a run starts, and keeps the first.
        values = {
            group.get(f"initial_{name}", group[name])
            for group in groups
            if name in group
        }
        if len(values) == 1 and isinstance(value := values.pop(), int | float):
            words.append(f"{name} {value:g}")
    return f" ({', '.join(words)})" if words else ""


def _lost(progress: dict[str, Any]) -> str:
    words = f"{progress['lost']:,} lost, {progress['skipped']:,} skipped"
    overflowed = progress.get("overflowed", 0)  # older runs do not count them
    if overflowed:
        return f"{words}, {overflowed:,} overflowed"
    return words if progress["lost"] or progress["skipped"] else "none"


def _cost(manifest: dict[str, Any]) -> str:
    cost, measured = cost_of(manifest), manifest["progress"]["measured"]
    if cost.share is None or not measured:
        return "-"
    words = f"{cost.share:.1%} of the time"
    if manifest.get("budget") is not None:
        words += f" (budget {manifest['budget']:.1%})"
    return f"{words}, {cost.seconds / measured * 1e3:.2f} ms a measurement"


def _notice(title: str, lines: list[str], kind: str) -> Any:
    return html.Div(
        [html.Strong(title), *(html.Div(line, className="wrap") for line in lines)],
        className=f"notice {kind}",
    )
