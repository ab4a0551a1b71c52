"""A comparison of two runs as one page that needs nothing else."""

import html
import os
from collections.abc import Iterable
from typing import Final

import pandas as pd

from dynoscope.dashboard.page import plot_cards, table_of, write_page
from dynoscope.dashboard.report_figures import figures, layer_curves, layer_ids
from dynoscope.dashboard.theme import SCHEMES
from dynoscope.diff import Diff
from dynoscope.diff.phrases import change, label_of, number, rows_of, setting, step
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
    curves = layer_curves(diff)  # read once for all schemes
    drawn = {name: figures(diff, scheme, curves) for name, scheme in SCHEMES.items()}
    titles = {plot: title for plot, (title, _) in drawn["light"].items()}
    plots = {
        name: {plot: figure for plot, (_, figure) in by_id.items()}
        for name, by_id in drawn.items()
    }
    heading = f"{diff.a.name} against {diff.b.name}"
    write_page(path, heading, "\n".join(_body(diff, titles)), plots)


def _body(diff: Diff, titles: dict[str, str]) -> Iterable[str]:
    yield f"<h1>{_name('a', diff.a.name)} against {_name('b', diff.b.name)}</h1>"
    for letter, side in (("a", diff.a), ("b", diff.b)):
        said = f"{side.optimizer} on {side.model}, {side.status}, {side.path}"
        yield f"<p class=run>{_name(letter, side.name)} {html.escape(said)}</p>"
    yield f"<p>{html.escape(diff.summary)}</p>"
    curves = [plot for plot in titles if plot not in ("heat", *layer_ids(diff))]
    yield plot_cards({plot: titles[plot] for plot in curves})
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
    yield plot_cards({plot: titles[plot] for plot in layer_ids(diff)})
    yield f"<h2>{html.escape(titles['heat'])}</h2><div class=plot id=heat></div>"
    yield from _everything(diff)


def _name(letter: str, name: str) -> str:
    return f"<span class={letter}><b>{letter}</b> {html.escape(name)}</span>"


def _settings(diff: Diff) -> str:
    rows = [
        (html.escape(row.key), *(html.escape(setting(v)) for v in (row.a, row.b)))
        for row in rows_of(diff.config)
    ]
    return table_of("settings", ("setting", "a", "b"), rows) if rows else ""


def _scalars(diff: Diff) -> str:
    heads = ("name", "last a", "last b", "least a", "least b", "mean a", "mean b")
    values = ("a_last", "b_last", "a_min", "b_min", "a_mean", "b_mean")
    rows = [
        (html.escape(row.name), *(number(getattr(row, value)) for value in values))
        for row in rows_of(diff.logged)
    ]
    return table_of("scalars", heads, rows) if rows else "<p class=note>None.</p>"


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
    return table_of(name, ("layer", *heads) if with_layer else heads, cells)
