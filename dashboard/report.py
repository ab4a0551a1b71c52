"""A comparison of two runs as one page that needs nothing else.

The page holds plotly.js, the plots in both colour schemes and the tables: it opens
without a server or a network.
"""

import html
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Final

import pandas as pd
from plotly.offline import get_plotlyjs

from dynoscope.dashboard.report_figures import figures, layer_ids
from dynoscope.dashboard.theme import FONT, SCHEMES
from dynoscope.diff import Diff
from dynoscope.diff.phrases import change, label_of, number, rows_of, setting, step
from dynoscope.errors import DynoscopeError
from dynoscope.schema import TABLES

__all__ = ["write_report"]

TABLED_LAYERS: Final = 100
"""Layers of which the page lists every metric; the rest are in the JSON."""


def write_report(diff: Diff, path: str | os.PathLike[str]) -> None:
    """Write a comparison as an HTML file.

    Args:
        diff: what to write.
        path: the file; replaced if it exists.

    Raises:
        DynoscopeError: it cannot be written there; the message says why.
    """
    page = _page(diff)
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise DynoscopeError(
            f"cannot write {path}: {error.strerror}; pass a file in a folder that "
            "exists and that you may write to"
        ) from error


def _page(diff: Diff) -> str:
    drawn = {name: figures(diff, scheme) for name, scheme in SCHEMES.items()}
    content = {
        name: {plot: figure for plot, (_, figure) in plots.items()}
        for name, plots in drawn.items()
    }
    # "</" would end the script that holds the JSON.
    embedded = json.dumps(content, allow_nan=False).replace("</", "<\\/")
    titles = {plot: title for plot, (title, _) in drawn["light"].items()}
    heading = f"{diff.a.name} against {diff.b.name}"
    return Template(PAGE).substitute(
        title=html.escape(heading),
        css=Template(CSS).substitute(
            font=FONT, light=_colors("light"), dark=_colors("dark")
        ),
        body="\n".join(_body(diff, titles)),
        plotly=get_plotlyjs(),
        figures=embedded,
        script=SCRIPT,
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


def _body(diff: Diff, titles: dict[str, str]) -> Iterable[str]:
    yield f"<h1>{_name('a', diff.a.name)} against {_name('b', diff.b.name)}</h1>"
    for letter, side in (("a", diff.a), ("b", diff.b)):
        said = f"{side.optimizer} on {side.model}, {side.status}, {side.path}"
        yield f"<p class=run>{_name(letter, side.name)} {html.escape(said)}</p>"
    yield f"<p>{html.escape(diff.summary)}</p>"
    curves = [plot for plot in titles if plot not in ("heat", *layer_ids(diff))]
    yield _plots({plot: titles[plot] for plot in curves})
    yield "<p class=note>Solid: measured. Dashed: predicted for equilibrium.</p>"
    yield "<div class=side><div>"
    yield f"<h2>Settings: {len(diff.config)} differ, {diff.config_equal} are equal</h2>"
    yield _settings(diff)
    yield "<h2>Scalars over common steps</h2>"
    yield _scalars(diff)
    yield "</div><div><h2>Whole model, mean over common steps</h2>"
    yield _comparison("whole", diff, diff.whole.reset_index(), with_layer=False)
    yield "</div></div>"
    yield "<h2>Layers that differ most, and the metric in which they do</h2>"
    yield _comparison("top", diff, diff.most_different(20))
    yield _plots({plot: titles[plot] for plot in layer_ids(diff)})
    yield f"<h2>{html.escape(titles['heat'])}</h2><div class=plot id=heat></div>"
    yield from _everything(diff)


def _name(letter: str, name: str) -> str:
    return f"<span class={letter}><b>{letter}</b> {html.escape(name)}</span>"


def _plots(titles: dict[str, str]) -> str:
    cards = (
        f"<section><h3>{html.escape(title)}</h3><div class=plot id={plot}></div>"
        "</section>"
        for plot, title in titles.items()
    )
    return f"<div class=cards>{''.join(cards)}</div>"


def _settings(diff: Diff) -> str:
    rows = [
        (html.escape(row.key), *(html.escape(setting(v)) for v in (row.a, row.b)))
        for row in rows_of(diff.config)
    ]
    return _table("settings", ("setting", "a", "b"), rows) if rows else ""


def _scalars(diff: Diff) -> str:
    heads = ("name", "last a", "last b", "least a", "least b", "mean a", "mean b")
    values = ("a_last", "b_last", "a_min", "b_min", "a_mean", "b_mean")
    rows = [
        (html.escape(row.name), *(number(getattr(row, value)) for value in values))
        for row in rows_of(diff.logged)
    ]
    return _table("scalars", heads, rows) if rows else "<p class=note>None.</p>"


def _everything(diff: Diff) -> Iterable[str]:
    chosen = set(diff.most_different(TABLED_LAYERS)["layer"])
    rows = diff.layers[diff.layers["layer"].isin(chosen)]
    total = diff.layers["layer"].nunique()
    which = (
        "every layer" if len(chosen) == total else f"{len(chosen)} of {total} layers"
    )
    yield f"<details><summary>Every metric of {which}</summary>"
    yield _comparison("layers", diff, rows)
    yield "</details>"
    if len(diff.normalization):
        yield "<details><summary>Normalization layers</summary>"
        yield _comparison("normalization", diff, diff.normalization, "normalization")
        yield "</details>"
    for side, names in ((diff.a, diff.only_a), (diff.b, diff.only_b)):
        if names:
            only = f"Only in {side.name}: {', '.join(names)}"
            yield f"<p class=note>{html.escape(only)}</p>"


def _comparison(
    name: str,
    diff: Diff,
    rows: pd.DataFrame,
    table: str = "layers",
    with_layer: bool = True,
) -> str:
    """Rows of one of the diff's frames."""
    heads = ("metric", "a", "b", "b vs a", f">{100 * diff.threshold:g}% at step")
    cells = []
    for row in rows_of(rows[rows["a"].notna() | rows["b"].notna()]):
        entry = TABLES[table][row.metric]
        unit = f" ({entry.unit})" if entry.unit else ""
        metric = (
            f"<span title='{html.escape(entry.description)}'>"
            f"{html.escape(label_of(row.metric, table) + unit)}</span>"
        )
        layer = (html.escape(row.layer),) if with_layer else ()
        values = number(row.a), number(row.b), change(row.kind, row.relative)
        cells.append((*layer, metric, *values, step(row.first_step)))
    return _table(name, ("layer", *heads) if with_layer else heads, cells)


def _table(name: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are HTML already."""
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
