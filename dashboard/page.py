"""A page of plots and tables that needs nothing else.

It holds plotly.js and the plots in both colour schemes: it opens without a server or
a network.
"""

import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

from plotly.offline import get_plotlyjs

from dynoscope.dashboard.theme import FONT, SCHEMES
from dynoscope.errors import DynoscopeError

__all__ = ["plot_cards", "table_of", "write_page"]


def write_page(
    path: str | os.PathLike[str],
    title: str,
    body: str,
    plots: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write a page.

    Args:
        path: the file; replaced if it exists.
        title: plain text.
        body: HTML, with an element of every plot's id.
        plots: per colour scheme, the plots by id, as plotly.js takes them.

    Raises:
        DynoscopeError: it cannot be written there; the message says why.
    """
    # "</" would end the script that holds the JSON.
    embedded = json.dumps(plots, allow_nan=False).replace("</", "<\\/")
    page = Template(PAGE).substitute(
        title=html.escape(title),
        css=Template(CSS).substitute(
            font=FONT, light=_colors("light"), dark=_colors("dark")
        ),
        body=body,
        plotly=get_plotlyjs(),
        figures=embedded,
        script=SCRIPT,
    )
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise DynoscopeError(
            f"cannot write {path}: {error.strerror}; pass a file in a folder that "
            "exists and that you may write to"
        ) from error


def plot_cards(titles: Mapping[str, str]) -> str:
    """A card for every plot, by its id."""
    cards = (
        f"<section><h3>{html.escape(title)}</h3><div class=plot id={plot}></div>"
        "</section>"
        for plot, title in titles.items()
    )
    return f"<div class=cards>{''.join(cards)}</div>"


def table_of(name: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, with the id `table-<name>`; its cells are HTML already."""
    head = "".join(
        f"<th><span class={cell}>{cell}</span>" if cell in ("a", "b") else f"<th>{cell}"
        for cell in map(html.escape, heads)
    )
    body = "".join(f"<tr>{''.join(f'<td>{c}' for c in row)}" for row in rows)
    texts = " two" if heads[0] == "layer" else ""
    return (
        f"<div class=scroll><table id=table-{name} class='numbers{texts}'>"
        f"<thead><tr>{head}<tbody>{body}</table></div>"
    )


def _colors(name: str) -> str:
    scheme = SCHEMES[name]
    colors = {
        "text": scheme.text,
        "muted": scheme.muted,
        "grid": scheme.grid,
        "paper": scheme.paper,
        "a": scheme.run_color(0),
        "b": scheme.run_color(1),
    }
    return " ".join(f"--{key}: {color};" for key, color in colors.items())


CSS: Final = """
:root { color-scheme: light dark; $light }
@media (prefers-color-scheme: dark) { :root { $dark } }
* { box-sizing: border-box; }
body { font: 15px/1.5 $font; color: var(--text); background: var(--paper);
  margin: 0 auto; padding: 16px; max-width: 1200px; }
h1 { font-size: 24px; line-height: 1.25; margin: 8px 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 32px 0 8px; }
h3 { font-size: 14px; margin: 0; overflow-wrap: anywhere; }
.a { color: var(--a); } .b { color: var(--b); }
.run { margin: 0; color: var(--muted); overflow-wrap: anywhere; }
.note, summary { color: var(--muted); }
summary { margin-top: 16px; cursor: pointer; }
.cards { display: grid; gap: 16px; margin-top: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
.side { display: flex; flex-wrap: wrap; gap: 0 64px; }
.side > div { min-width: 0; max-width: 100%; }
section { border: 1px solid var(--grid); border-radius: 8px; padding: 12px;
  min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: 14px; }
th { color: var(--muted); font-weight: 600; text-align: right; white-space: nowrap; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--grid); }
td { text-align: right; white-space: nowrap; }
th:first-child, td:first-child, .two th:nth-child(2), .two td:nth-child(2)
  { text-align: left; }
"""

SCRIPT: Final = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  for (const [id, f] of Object.entries(figures[dark.matches ? "dark" : "light"]))
    Plotly.react(id, f.data, f.layout, {responsive: true, displayModeBar: false});
}
dark.addEventListener("change", draw);
draw();
"""

PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
$body
<script type="application/json" id="figures">$figures</script>
<script>$plotly</script>
<script>$script</script>
</html>
"""
