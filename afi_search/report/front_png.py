"""The front as a PNG: matplotlib draws the plotly figure, without a display or a browser."""

from __future__ import annotations

import io
import itertools
import re
import textwrap
from collections.abc import Sequence
from html import unescape
from typing import Any

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from afi_search.report import style
from afi_search.report.style import DPI, SMALL
from afi_search.report.table import front_key
from afi_search.report.view import FRONT, StudyView

WIDTH_PIXELS = 1600
MAIN_INCHES = 4.0
LINE_INCHES = 0.165
LINE_LETTERS = 150
POINTS = 0.6
"""One pixel of the page, in points here: the picture is shown smaller than it is drawn."""
SHAPES = {None: "o", "star": "*", "diamond-open": "D", "line-ns-open": "|"}


def front_png(view: StudyView, figure: go.Figure) -> bytes:
    """Draw what `front_figure` describes, 1,600 pixels wide, with a key of the architectures below.

    That is scatter traces over panels that stand on one another, vertical lines, annotations.
    """
    texts = [text for trace in figure.select_traces({"name": FRONT}) for text in trace.text]
    key = front_key(view, [text.split(" ")[0] for text in texts])
    panels = list(figure.select_yaxes())
    shares = [panel.domain[1] - panel.domain[0] for panel in panels]
    remarks = [" \N{MIDDLE DOT} ".join(view.facts), view.info.note]
    head = [line for remark in remarks for line in textwrap.wrap(remark, LINE_LETTERS)]
    above, below = 0.6 + LINE_INCHES * len(head), LINE_INCHES * (len(key) + 1)
    height = above + MAIN_INCHES / max(shares) + 0.5 + below
    picture = Figure(figsize=(WIDTH_PIXELS / DPI, round(height * DPI) / DPI), dpi=DPI)
    FigureCanvasAgg(picture)
    rect = (0, below / height, 1, 1 - (above + below) / height)
    picture.set_layout_engine("constrained", rect=rect, h_pad=0.05, w_pad=0.05)
    rows = picture.subplots(len(panels), sharex=True, squeeze=False, height_ratios=shares)[:, 0]
    places = {}
    for panel, axes in zip(panels, rows, strict=True):
        places[panel.plotly_name.replace("axis", "")] = axes
        _set_up(axes, panel)
    for layer, trace in enumerate(figure.data, start=2):
        _draw(places[trace.yaxis], trace, layer)
    for shape in figure.layout.shapes:
        axes = places[shape.yref.split()[0]]
        axes.axvline(shape.x0, c=shape.line.color, lw=0.8, ls=":", zorder=1)
    for note in figure.layout.annotations:
        _annotate(places[note.yref.split()[0]], note)
    lowest = list(figure.select_xaxes())[-1]
    rows[-1].set_xlim(*lowest.range)
    rows[-1].set_xlabel(_plain(lowest.title.text), fontsize=SMALL, color=style.INK)
    picture.align_ylabels()

    left = 0.012
    picture.text(left, 1 - 0.1 / height, view.heading, fontsize=10, va="top", weight="bold")
    looks: dict[str, Any] = {"fontsize": SMALL, "va": "top", "linespacing": 1.5}
    picture.text(left, 1 - 0.35 / height, "\n".join(head), color=style.SOFT, **looks)
    key_top = (below - LINE_INCHES / 2) / height
    table = picture.text(0.085, key_top, key_text(key), family="monospace", **looks)
    sizes = itertools.count(SMALL, -0.25)
    while table.get_window_extent().x1 > 0.99 * WIDTH_PIXELS and (size := next(sizes)) > 1:
        table.set_fontsize(size)
    drawn = {str(line.get_label()): line for axes in rows for line in axes.lines}
    named = [trace for trace in figure.data if trace.name]
    handles = [drawn[trace.name] for trace in sorted(named, key=lambda trace: trace.legendrank)]
    if handles:
        at = (left - 0.006, 1 - (above - 0.25) / height)
        gaps = {"handletextpad": 0.1, "columnspacing": 1.2, "borderpad": 0}
        looks = {"loc": "upper left", "fontsize": SMALL, "frameon": False, **gaps}
        picture.legend(handles=handles, bbox_to_anchor=at, ncols=len(handles), **looks)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def _set_up(axes: Axes, panel: go.layout.YAxis) -> None:
    style.dress(axes)
    axes.set_ylim(*panel.range)
    axes.set_ylabel(_plain(panel.title.text), fontsize=SMALL, color=style.INK)
    if panel.tickvals is not None:
        axes.set_yticks(panel.tickvals)
    elif panel.nticks:
        axes.yaxis.set_major_locator(MaxNLocator(panel.nticks - 1))


def _draw(axes: Axes, trace: go.Scatter, layer: int) -> None:
    mode, marker = trace.mode or "", trace.marker
    if "lines" in mode:
        steps = "steps-post" if trace.line.shape == "hv" else "default"
        width = trace.line.width * POINTS
        axes.plot(trace.x, trace.y, c=trace.line.color, lw=width, ds=steps, zorder=layer)
    if "markers" in mode:
        axes.plot(
            trace.x,
            trace.y,
            ls="none",
            marker=SHAPES[marker.symbol],
            ms=marker.size * POINTS,
            mfc="none" if (marker.symbol or "").endswith("-open") else marker.color,
            mec=marker.line.color,
            mew=marker.line.width * POINTS,
            alpha=marker.opacity,
            zorder=layer,
            label=trace.name,
        )
    if trace.error_y.visible:
        axes.errorbar(
            trace.x,
            trace.y,
            yerr=[trace.error_y.arrayminus, trace.error_y.array],
            fmt="none",
            ecolor=trace.error_y.color,
            elinewidth=0.7,
            capsize=1.5,
            capthick=0.7,
            zorder=layer - 1.5,  # below the line that joins the points
        )
    texts = zip(trace.x, trace.y, trace.text or (), trace.textposition or (), strict=False)
    for x, y, text, place in texts:
        ha, aside = ("left", 4) if place.endswith("right") else ("right", -4)
        looks = {"ha": ha, "fontsize": SMALL, "color": trace.textfont.color}
        offset = (aside, 4)
        axes.annotate(_plain(text), (x, y), xytext=offset, textcoords="offset points", **looks)


def _annotate(axes: Axes, note: go.layout.Annotation) -> None:
    on_data = not note.xref.endswith("domain")
    axes.annotate(
        _plain(note.text),
        (note.x, note.y),
        xycoords=("data" if on_data else "axes fraction", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va=note.yanchor or "center",
        fontsize=note.font.size * POINTS,
        color=style.INK,
        bbox={"facecolor": note.bgcolor or "none", "edgecolor": "none"},
    )


def key_text(key: Sequence[Sequence[str]]) -> str:
    """Align the cells of a table below one another: label and name to the left, else right."""
    widths = [max(map(len, column)) for column in zip(*key, strict=True)]
    sides = ["<", "<", *">" * (len(widths) - 2)]
    cells = [zip(row, sides, widths, strict=True) for row in key]
    return "\n".join("   ".join(f"{c:{side}{width}}" for c, side, width in row) for row in cells)


def _plain(text: str) -> str:
    """Return plotly's text without its tags."""
    return unescape(re.sub("<[^>]+>", "", text.replace("<br>", "\n")))
