"""What the pictures of an analysis have in common: inches, fonts and colours."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from afi_search.report import style

DPI = 200
TITLE, TEXT, SMALL = 10, 8, 7
LINE, MARGIN = 0.17, 0.15
POINTS_PER_INCH = 72
COLOURS = (style.FAINT, style.FRONT, style.PAPER, "#009e73")
"""One a network, the plain one first."""


def room_for(text: str, size: float = TEXT, weight: str = "normal") -> float:
    """Return how many inches a line of text and the margins beside it take."""
    path = TextPath((0, 0), text, size=size, prop=FontProperties(weight=weight))
    return float(path.get_extents().width) / POINTS_PER_INCH + 2 * MARGIN


class Sheet:
    """A figure whose parts are placed in inches from its upper left corner.

    Args:
        width, height: inches.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width = width
        self.height = height
        self.figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes whose upper left corner is at (left, top)."""
        return self.figure.add_axes(
            (
                left / self.width,
                1 - (top + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )

    def text(self, left: float, top: float, text: str, size: float = TEXT, **looks: Any) -> None:
        """Write text whose upper edge is at `top`; `looks` are properties of matplotlib's Text."""
        x, y = left / self.width, 1 - top / self.height
        self.figure.text(x, y, text, fontsize=size, va="top", **looks)

    def legend(self, left: float, top: float, handles: Sequence[Artist]) -> None:
        """Add a legend in one line."""
        self.figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(left / self.width, 1 - top / self.height),
            ncols=len(handles),
            fontsize=TEXT,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handletextpad=0.4,
            columnspacing=1.5,
        )

    def png(self) -> bytes:
        """Return the picture."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
        return buffer.getvalue()


def bare(axes: Axes, ticks: Iterable[str] = ()) -> None:
    """Take frame and ticks from axes, but for the ticks of "x" and "y" that are named."""
    axes.spines[:].set_visible(False)
    kept = set(ticks)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=style.INK)
    if "x" not in kept:
        axes.set_xticks([])
    if "y" not in kept:
        axes.set_yticks([])
