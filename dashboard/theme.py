"""Colours and type of the page and of every plot, light and dark."""

import dataclasses
from typing import Any, Final

__all__ = ["SCHEMES", "SEQUENTIAL", "Scheme", "scheme", "translucent"]

FONT: Final = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', "
    "'DejaVu Sans', Arial, sans-serif"
)


@dataclasses.dataclass(frozen=True)
class Scheme:
    """One colour scheme.

    Attributes:
        name: `light` or `dark`, as the page calls it.
        text: colour of text.
        muted: colour of secondary text; still 4.5:1 on the plots' background.
        grid: colour of grid lines.
        paper: background of a plot.
        runs: one colour per overlaid run, told apart by the colour-blind too
            (after Okabe and Ito); used in turn.
        diverging: colours from far below 1x over neutral to far above it.
    """

    name: str
    text: str
    muted: str
    grid: str
    paper: str
    runs: tuple[str, ...]
    diverging: tuple[str, ...]

    def run_color(self, position: int) -> str:
        """Colour of the run at that position of the selection."""
        return self.runs[position % len(self.runs)]

    def colorscale(self) -> list[list[float | str]]:
        """The diverging colours as a plotly scale, neutral in the middle."""
        last = len(self.diverging) - 1
        return [[i / last, color] for i, color in enumerate(self.diverging)]

    def layout(self, **changes: Any) -> dict[str, Any]:
        """A plotly layout in these colours; `changes` are laid over it."""
        axis = {
            "gridcolor": self.grid,
            "linecolor": self.grid,
            "zeroline": False,
            "automargin": True,
            "title": {"standoff": 8, "font": {"size": 12, "color": self.muted}},
            "tickfont": {"size": 12, "color": self.muted},
        }
        base: dict[str, Any] = {
            "paper_bgcolor": self.paper,
            "plot_bgcolor": self.paper,
            "font": {"family": FONT, "size": 13, "color": self.text},
            "margin": {"l": 48, "r": 12, "t": 10, "b": 40},
            "xaxis": axis,
            "yaxis": axis,
            "showlegend": False,
            "hovermode": "x unified",
            "hoverlabel": {
                "bgcolor": self.paper,
                "bordercolor": self.grid,
                "font": {"family": FONT, "size": 12, "color": self.text},
            },
            "modebar": {
                "bgcolor": "rgba(0,0,0,0)",
                "color": self.muted,
                "activecolor": self.text,
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        }
        return merged(base, changes)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Lay nested dictionaries over each other.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4})
    {'a': {'b': 1, 'c': 3}, 'd': 4}
    """
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = merged(below, value)
        result[key] = value
    return result


SCHEMES: Final = {
    "light": Scheme(
        name="light",
        text="#1c2126",
        muted="#59636e",
        grid="#e3e7eb",
        paper="#ffffff",
        runs=("#0072b2", "#d55e00", "#007a5a", "#a23b80", "#8a6100", "#4b3fa8"),
        diverging=(
            "#053b7a", "#2a78bd", "#8dbfe3", "#f1f1ef", "#f5b56d", "#c9660a", "#7a3300"
        ),
    ),
    "dark": Scheme(
        name="dark",
        text="#e8eaed",
        muted="#a3abb5",
        grid="#333941",
        paper="#1b1f24",
        runs=("#56b4e9", "#ff9a4d", "#3fcf9c", "#e58fc3", "#e6c84f", "#b3a4ff"),
        diverging=(
            "#9fd8ff", "#4aa3e0", "#24597f", "#2c3036", "#8a4d12", "#ec8a2c", "#ffd29a"
        ),
    ),
}  # fmt: skip
"""Both schemes by name."""

SEQUENTIAL: Final = "Cividis"
"""Scale of a quantity without a neutral middle; made for the colour-blind."""


def scheme(name: str | None) -> Scheme:
    """The scheme of that name; light if there is no such one."""
    return SCHEMES.get(name or "light", SCHEMES["light"])


def translucent(color: str, opacity: float) -> str:
    """A `#rrggbb` colour with an opacity, as CSS.

    >>> translucent("#0072b2", 0.5)
    'rgba(0,114,178,0.5)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
