"""What rules found in the selected runs, a line or two for each rule."""

from collections.abc import Sequence
from typing import Any

from dash import html

from dynoscope.dashboard.plots import States
from dynoscope.dashboard.theme import Scheme
from dynoscope.findings import Finding
from dynoscope.findings.groups import counted, grouped, where

__all__ = ["findings_list"]


def findings_list(states: States, scheme: Scheme) -> list[Any]:
    """One list per run that has findings; notes are folded away."""
    found = {key: list(state.findings.values()) for key, state in states.items()}
    children: list[Any] = []
    for position, (key, findings) in enumerate(found.items()):
        if not findings:
            continue
        if len(found) > 1:
            swatch = {"background": scheme.run_color(position)}
            mark = html.Span(className="swatch", style=swatch)
            children.append(html.Div([mark, html.H4(key)], className="head"))
        loud = [finding for finding in findings if finding.severity != "note"]
        notes = [finding for finding in findings if finding.severity == "note"]
        children += [_item(group) for group in grouped(loud)]
        if notes:
            items = [_item(group) for group in grouped(notes)]
            summary = html.Summary(counted(notes))
            children.append(html.Details([summary, *items], className="notes"))
    return children


def _item(group: Sequence[Finding]) -> Any:
    first = group[0]
    layers = ", ".join(finding.layer for finding in group)
    head = html.Div(
        [
            html.Span(first.severity, className=f"severity {first.severity}"),
            html.Strong(where(group), className="wrap", title=layers),
            html.Span(f"since step {first.step:,}", className="since"),
        ],
        className="head",
    )
    message = html.Div(first.message, className="wrap", title=first.source)
    return html.Div([head, message], className="finding")
