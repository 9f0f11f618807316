"""Colours, names and fonts that all pictures have in common.

The colours are told apart with any common kind of colour vision (Okabe and Ito's palette).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

INK = "#1f2933"
SOFT = "#52606d"
FAINT = "#7b8794"
GRID = "#e4e7eb"
FRONT = "#0072b2"
INTERVALS = "#80b9d9"
OTHERS = "#8fb8d4"
PAPER = "#d55e00"
PLAIN = "#1f2933"
PRUNED = "#7b8794"
FAILED = "#cc79a7"


def apply_theme(figure: go.Figure, **layout: Any) -> go.Figure:
    """Give a plotly figure the common fonts, colours and margins; return it.

    Args:
        figure: a figure with its axes.
        layout: what this figure has otherwise, as plotly's `update_layout` takes it.
    """
    common: dict[str, Any] = {
        "template": "none",
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        "margin": {"l": 62, "r": 16, "t": 24, "b": 44},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.06, "yanchor": "bottom"},
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"color": INK}},
        "hovermode": "closest",
        "dragmode": "zoom",
        "title": None,
    }
    figure.update_layout(**(common | layout))
    axis = {"gridcolor": GRID, "linecolor": FAINT, "zeroline": False}
    figure.update_xaxes(**axis, title={"standoff": 8, "font": {"size": 12}})
    figure.update_yaxes(**axis, title={"standoff": 8, "font": {"size": 12}})
    return figure
