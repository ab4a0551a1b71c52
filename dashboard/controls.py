"""What can be chosen, and the choice that a link carries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from dynoscope.dashboard.logged import OWN
from dynoscope.dashboard.plots import (
    DEFAULT_METRICS,
    NEURONS,
    States,
    find_metric,
    layer_metrics,
)
from dynoscope.schema import TABLES

__all__ = [
    "Link",
    "count_options",
    "layer_options",
    "metric_options",
    "preferred_layer",
    "preferred_scalar",
    "scalar_options",
]

Options = list[dict[str, Any]]


class Link(NamedTuple):
    """What the query string of the page's address says; None where it is silent."""

    runs: list[str]
    layer: str | None
    scalar: str | None
    metrics: list[str]

    @classmethod
    def of(cls, search: str | None) -> "Link":
        """Read a query string; what it does not know is left out.

        >>> Link.of("?run=a&run=b%2Fc&layer=0.weight&metric=grad_l2&metric=nonsense")
        Link(runs=['a', 'b/c'], layer='0.weight', scalar=None, metrics=['grad_l2'])
        """
        found = parse_qs((search or "").lstrip("?"))
        known = layer_metrics()
        return cls(
            runs=found.get("run", []),
            layer=found.get("layer", [None])[0],
            scalar=found.get("scalar", [None])[0],
            metrics=[name for name in found.get("metric", []) if name in known],
        )


def metric_options() -> Options:
    """Every metric of a layer, as the registry calls it."""
    names = layer_metrics()
    neurons = [name for name in names if name.startswith(NEURONS)]
    groups = {
        "shown by default": list(DEFAULT_METRICS),
        "more of the layer": [
            n for n in names if n not in neurons and n not in DEFAULT_METRICS
        ],
        "over its neurons": neurons,
    }

    def label(name: str) -> str:
        prefix = "neurons: " if name in neurons else ""
        return prefix + find_metric(name).label

    return _options(groups, label)


def count_options() -> Options:
    """Every count, and every companion, of a normalization layer."""
    table = TABLES["normalization"]
    return [
        {"value": name, "label": table[name].label} for name in table.names("measured")
    ]


def layer_options(states: States) -> Options:
    """Layers and roll-ups of the selected runs, the first run's first."""
    layers: dict[str, None] = {}
    roll_ups: dict[str, None] = {}
    for state in states.values():
        layers.update(dict.fromkeys(state.layer_names))
        roll_ups.update(dict.fromkeys(state.roll_ups))
    groups = {"whole model and modules": list(roll_ups), "layers": list(layers)}
    return _options(groups, lambda n: "* (whole model)" if n == "*" else n)


def scalar_options(states: States) -> list[str]:
    """Names that were logged; dynoscope's own come last."""
    names = {name for state in states.values() for name in state.scalars}
    return sorted(names, key=lambda name: (name.startswith(OWN), name))


def preferred_layer(states: States) -> str | None:
    """The largest layer of the first run: where most of the training happens."""
    for state in states.values():
        if state.layer_names:
            return state.layer_names[int(state.numel.argmax())]
    return None


def preferred_scalar(names: Sequence[str]) -> str | None:
    """`loss`, else the first name with loss in it, else the first."""
    by_taste = sorted(names, key=lambda name: (name != "loss", "loss" not in name))
    return by_taste[0] if by_taste else None


def _options(
    groups: Mapping[str, Sequence[str]], label: Callable[[str], str]
) -> Options:
    return [
        {"group": group, "items": [{"value": n, "label": label(n)} for n in names]}
        for group, names in groups.items()
        if names
    ]
