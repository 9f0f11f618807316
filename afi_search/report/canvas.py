"""How every plotly figure of a report looks."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from afi_search.report import style


def dress(figure: go.Figure, **layout: Any) -> go.Figure:
    """Give a figure the common fonts, colours and margins; return it.

    Args:
        figure: a figure with its axes.
        layout: what this figure has otherwise, as plotly's `update_layout` takes it.
    """
    common: dict[str, Any] = {
        "template": "none",
        "font": {"color": style.INK, "size": 12, "family": "system-ui, sans-serif"},
        "margin": {"l": 62, "r": 16, "t": 24, "b": 44},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.06, "yanchor": "bottom"},
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"color": style.INK}},
        "hovermode": "closest",
        "dragmode": "zoom",
    }
    figure.update_layout(**(common | layout))
    axis = {"gridcolor": style.GRID, "linecolor": style.FAINT, "zeroline": False}
    figure.update_xaxes(**axis, title={"standoff": 8, "font": {"size": 12}})
    figure.update_yaxes(**axis, title={"standoff": 8, "font": {"size": 12}})
    return figure
