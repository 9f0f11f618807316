"""Colours, fonts and frames that all pictures have in common, plotly's and matplotlib's.

The colours are told apart with any common kind of colour vision (Okabe and Ito's palette).
"""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import Series

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
NETWORKS = (FAINT, FRONT, PAPER, "#009e73")
"""One a network that is compared, the plain one first."""

DPI = 200
TITLE, TEXT, SMALL = 10, 8, 7  # points
SMALL_PER_INCH, LEAST_CAPTION = 21, 5.4  # characters of SMALL text; inches


def apply_theme(figure: go.Figure, x: str | None, y: str | None, **layout: Any) -> go.Figure:
    """Give a plotly figure the common looks, but for `layout`, and its axes titles; return it."""
    common: dict[str, Any] = {
        "template": "none",
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        "margin": {"l": 62, "r": 16, "t": 24, "b": 44},
        "legend": {
            **{"orientation": "h", "x": 0, "xanchor": "left", "y": 1.06, "yanchor": "bottom"},
            "title": None,
        },
        "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"color": INK}},
        "hovermode": "closest",
        "dragmode": "zoom",
        "title": None,
    }
    figure.update_layout(**(common | layout))
    axis = {"gridcolor": GRID, "linecolor": FAINT, "zeroline": False}
    figure.update_xaxes(**axis, title={"text": x, "standoff": 8, "font": {"size": 12}})
    figure.update_yaxes(**axis, title={"text": y, "standoff": 8, "font": {"size": 12}})
    return figure


def error_bars(low: Series, value: Series, high: Series, **looks: Any) -> dict[str, Any]:
    """Return plotly's error bars for intervals around values."""
    ends = {"array": high - value, "arrayminus": value - low}
    return {**ends, "thickness": 1, "width": 3, **looks}


def titled_figure(title: str, caption: str, width: float, height: float) -> Figure:
    """Return an empty figure, in inches, with a title above and a folded caption below it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, x=0, ha="left", fontsize=TITLE, weight="bold", color=INK)
    wrapped = "\n".join(textwrap.wrap(caption, round(max(width, LEAST_CAPTION) * SMALL_PER_INCH)))
    figure.supxlabel(wrapped, x=0, ha="left", fontsize=SMALL, color=SOFT)
    return figure


def dress(axes: Axes, grid: str = "both") -> None:
    axes.grid(axis=grid, color=GRID, lw=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, color=FAINT, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def bare(axes: Axes, ticks: str = "") -> None:
    """Take frame and ticks from axes, but for the ticks of "x" and "y" that are named."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=INK)
    if "x" not in ticks:
        axes.set_xticks([])
    if "y" not in ticks:
        axes.set_yticks([])


def png(figure: Figure) -> bytes:
    """Return the picture, grown to the right where a line of text is wider than the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.15)
    return buffer.getvalue()
