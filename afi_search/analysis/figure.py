"""What the pictures of an analysis have in common; constrained layout places the parts."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from afi_search.report import style

DPI = 200
TITLE, TEXT, SMALL = 10, 8, 7  # points
SMALL_PER_INCH, LEAST_CAPTION = 21, 5.4  # characters of SMALL text; inches
COLOURS = (style.FAINT, style.FRONT, style.PAPER, "#009e73")
"""One a network, the plain one first."""


def titled_figure(title: str, caption: str, width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches, with a title above and a caption below it."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.suptitle(title, x=0, ha="left", fontsize=TITLE, weight="bold", color=style.INK)
    wrapped = "\n".join(textwrap.wrap(caption, round(max(width, LEAST_CAPTION) * SMALL_PER_INCH)))
    figure.supxlabel(wrapped, x=0, ha="left", fontsize=SMALL, color=style.SOFT)
    return figure


def png(figure: Figure) -> bytes:
    """Return the picture, grown to the right where a line of text is wider than the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", bbox_inches="tight", pad_inches=0.15)
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
