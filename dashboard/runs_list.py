"""The list of runs."""

import json
from typing import Any, Final

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import html

__all__ = ["grid_style", "runs_list"]

GRID_COLORS: Final = {
    "backgroundColor": "var(--card)",
    "foregroundColor": "var(--text)",
    "headerBackgroundColor": "var(--card)",
    "headerTextColor": "var(--muted)",
    "borderColor": "var(--line)",
    "accentColor": "var(--accent)",
    "selectedRowBackgroundColor": "var(--selected)",
    "rowHoverColor": "var(--hover)",
    "fontFamily": "inherit",
    "fontSize": 14,
    "wrapperBorder": False,
    "cellHorizontalPadding": 8,
}
"""The page's own colours, so that both schemes need no second theme."""


COLUMNS: Final = [
    {
        "field": "id",
        "headerName": "Run",
        "flex": 1,
        "minWidth": 110,
        "cellRenderer": "RunName",
        "tooltipField": "id",
    },
    {
        "field": "status",
        "width": 104,
        "cellRenderer": "RunStatus",
        "tooltipField": "note",
    },
    {
        "field": "step",
        "width": 86,
        "cellRenderer": "RunStep",
        "type": "rightAligned",
    },
]

OPTIONS: Final = {
    "theme": {"function": f"themeQuartz.withParams({json.dumps(GRID_COLORS)})"},
    "rowHeight": 54,
    "headerHeight": 34,
    "animateRows": False,
    "rowSelection": {
        "mode": "multiRow",
        "enableClickSelection": True,
        "headerCheckbox": False,
    },
    "selectionColumnDef": {"width": 38, "pinned": None},
    "tooltipShowDelay": 200,
    "suppressNoRowsOverlay": True,
}


def runs_list(rows: list[dict[str, Any]]) -> Any:
    """The list; a click shows a run, ticks lay several over each other."""
    grid = dag.AgGrid(
        id="runs",
        rowData=rows,
        getRowId="params.data.id",
        columnDefs=COLUMNS,
        defaultColDef={"sortable": True, "resizable": False, "suppressMovable": True},
        dashGridOptions=OPTIONS,
        style=grid_style(len(rows)),
        className="runs-grid",
    )
    return html.Aside(
        [
            dmc.TextInput(
                id="filter",
                placeholder="Filter runs",
                size="sm",
                **{"aria-label": "Filter runs"},
            ),
            grid,
            html.P("Tick several runs to lay them over each other.", className="hint"),
        ],
        className="runs",
        id="aside",
        hidden=not rows,
    )


def grid_style(rows: int) -> dict[str, Any]:
    """Let the list be as high as its rows need, up to what the style sheet allows."""
    return {"--rows": max(rows, 1), "height": None, "width": "100%"}
