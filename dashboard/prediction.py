"""A prediction as one page that needs nothing else: norm and rotation over steps."""

import html
import os
from collections.abc import Iterable

import numpy as np

from dynoscope.calculator import Prediction
from dynoscope.dashboard.page import plot_cards, write_page
from dynoscope.dashboard.report_figures import Figure, figure, line
from dynoscope.dashboard.theme import SCHEMES, Scheme

__all__ = ["write_prediction"]

PLOTS = {
    "weight_norm": ("Weight norm", ""),
    "angular_update": ("Angular update", "rad"),
    "lr": ("Learning rate", ""),
}


def write_prediction(
    predictions: Iterable[Prediction], path: str | os.PathLike[str]
) -> None:
    """Write predictions of one layer, one or two, as an HTML file.

    Args:
        predictions: what to draw.
        path: the file; replaced if it exists.

    Raises:
        DynoscopeError: it cannot be written there; the message says why.
    """
    shown = list(predictions)
    plots = {
        name: {metric: _plot(shown, metric, scheme) for metric in PLOTS}
        for name, scheme in SCHEMES.items()
    }
    names = [_name(prediction) for prediction in shown]
    title = " and ".join(names)
    colored = " and ".join(
        f"<span class={letter}>{html.escape(name)}</span>"
        for letter, name in zip("ab", names, strict=False)
    )
    shape = " x ".join(map(str, shown[0].shape))
    body = (
        f"<h1>{colored}</h1>"
        f"<p>A scale-invariant weight of {html.escape(shape)}. Solid: along the "
        "schedule. Dashed: where it would settle at the learning rate of the step.</p>"
        + plot_cards({metric: heading for metric, (heading, _) in PLOTS.items()})
    )
    write_page(path, title, body, plots)


def _name(prediction: Prediction) -> str:
    lr, decay = (prediction.settings[key] for key in ("lr", "weight_decay"))
    return f"{prediction.optimizer} (lr {lr:.3g}, weight decay {decay:.3g})"


def _plot(predictions: list[Prediction], metric: str, scheme: Scheme) -> Figure:
    traces = []
    for position, prediction in enumerate(predictions):
        rows, color = prediction.trajectory, scheme.run_color(position)
        for column, dash in ((metric, "solid"), (f"pred_{metric}", "dash")):
            if column not in rows or not np.isfinite(rows[column]).any():
                continue
            label = "equilibrium" if dash == "dash" else "schedule"
            name = f"{prediction.optimizer}, {label}"
            traces.append(line(rows["step"], rows[column], name, color, dash))
    # not logarithmic: a decay to 0 would leave nothing else to see
    return figure(traces, scheme, log=False, unit=PLOTS[metric][1])
