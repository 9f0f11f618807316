"""The front as a PNG, drawn by matplotlib without a display or a browser."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from afi_search.report import style
from afi_search.report.plots import PANEL_HEIGHTS, front_panels
from afi_search.report.view import FrontView, Point

WIDTH_PIXELS = 1600
DPI = 200
LEFT, RIGHT = 0.085, 0.985
MAIN_INCHES = 4.0
AXIS_TITLE_INCHES = 0.55
LINE_INCHES = 0.165
LINE_LETTERS = 150
KEY_LINES = 20
KEY_LETTERS = 96
SMALL = 7


def front_png(view: FrontView) -> bytes:
    """Draw what `front_figure` draws, with a key of the front's architectures below."""
    panels = front_panels(view)
    heading = heading_lines(view)
    key = front_key(view)
    top = 0.4 + LINE_INCHES * (len(heading) + 2)
    picture = MAIN_INCHES * sum(PANEL_HEIGHTS[name] for name in panels) / PANEL_HEIGHTS["main"]
    height = top + picture + AXIS_TITLE_INCHES + LINE_INCHES * (len(key) + 1)
    figure = Figure(figsize=(WIDTH_PIXELS / DPI, round(height * DPI) / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(panels),
        1,
        left=LEFT,
        right=RIGHT,
        top=1 - top / height,
        bottom=1 - (top + picture) / height,
        height_ratios=[PANEL_HEIGHTS[name] for name in panels],
        hspace=0.1,
    )
    axes: dict[str, Axes] = {}
    for row, name in enumerate(panels):
        axes[name] = figure.add_subplot(grid[row, 0], sharex=next(iter(axes.values()), None))
    artists = _draw_trials(axes["main"], view)
    if view.paper:
        artists.append(_draw_paper(axes.get("paper", axes["main"]), view))
    if view.pruned:
        artists.append(_draw_pruned(axes["pruned"], view))
    _dress(figure, axes, view)
    _write_heading(figure, view, heading, artists, height)
    _write_key(figure, key, height, top + picture + AXIS_TITLE_INCHES)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()


def heading_lines(view: FrontView) -> list[str]:
    """Return the lines under the title: the facts, and what the numbers are good for."""
    facts = textwrap.wrap(" \N{MIDDLE DOT} ".join(view.facts), LINE_LETTERS)
    return facts + textwrap.wrap(view.note, LINE_LETTERS)


def front_key(view: FrontView) -> list[tuple[str, str, str, str]]:
    """Return the lines under the picture: label, architecture, accuracy, cost; cheapest first."""
    if not view.front:
        return []
    shown: Sequence[Point] = view.front
    if len(shown) > KEY_LINES:
        shown = [point for point in view.front if point.labelled][: KEY_LINES - 1]
    lines = [("front", "", "accuracy, %", view.axis.heading)]
    lines += [
        (point.label, point.architecture, f"{point.y:.1f}", view.axis.write(point.cost))
        for point in shown
    ]
    if len(shown) < len(view.front):
        lines.append(("", f"and {len(view.front) - len(shown)} more", "", ""))
    return lines


def _draw_trials(axes: Axes, view: FrontView) -> list[Artist]:
    """Draw the main panel; return what its legend names, in order."""
    artists: list[Artist] = []
    if view.front:
        axes.plot(*zip(*_in_units(view), strict=True), c=style.FRONT, lw=1.1, zorder=3)
        if view.intervals:
            axes.errorbar(
                *_xy(view, view.front),
                yerr=[
                    [point.y - point.low for point in view.front],
                    [point.high - point.y for point in view.front],
                ],
                fmt="none",
                ecolor=style.FRONT,
                elinewidth=0.7,
                capsize=1.5,
                capthick=0.7,
                alpha=0.5,
                zorder=3,
            )
        artists.append(
            axes.scatter(
                *_xy(view, view.front),
                s=32,
                c=style.FRONT,
                edgecolors="white",
                linewidths=0.6,
                zorder=4,
                label=style.FRONT_NAME,
            )
        )
        for point in view.front:
            if point.labelled:
                axes.annotate(
                    point.label,
                    (point.cost / view.axis.unit, point.y),
                    xytext=(-4, 4),
                    textcoords="offset points",
                    ha="right",
                    va="bottom",
                    fontsize=SMALL,
                    color=style.FRONT,
                )
    if view.others:
        artists.append(
            axes.scatter(
                *_xy(view, view.others),
                s=18,
                c=style.OTHERS,
                edgecolors="white",
                linewidths=0.4,
                zorder=2,
                label=style.OTHERS_NAME,
            )
        )
    if view.plain_trials:
        artists.append(
            axes.scatter(
                *_xy(view, view.plain_trials),
                s=90,
                marker="*",
                c=style.PLAIN,
                edgecolors="white",
                linewidths=0.6,
                zorder=5,
                label=style.PLAIN_NAME,
            )
        )
    if view.message:
        axes.text(
            0.5,
            0.5,
            view.message,
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=11,
            color=style.INK,
            bbox={"facecolor": "white", "edgecolor": "none"},
        )
    return artists


def _draw_paper(axes: Axes, view: FrontView) -> Artist:
    return axes.scatter(
        *_xy(view, view.paper),
        s=34,
        marker="D",
        facecolors="none",
        edgecolors=style.PAPER,
        linewidths=1.3,
        zorder=4,
        label=view.paper_name,
    )


def _draw_pruned(axes: Axes, view: FrontView) -> Artist:
    return axes.scatter(
        *_xy(view, view.pruned),
        s=28,
        marker="|",
        c=style.PRUNED,
        linewidths=1,
        alpha=0.6,
        zorder=2,
        label=style.PRUNED_NAME,
    )


def _dress(figure: Figure, axes: dict[str, Axes], view: FrontView) -> None:
    names = list(axes)
    for name, each in axes.items():
        each.set_xlim(*(cost / view.axis.unit for cost in view.cost_range))
        each.set_ylim(*view.y_range(name))
        title = style.Y_AXES[name]
        each.set_ylabel(title, fontsize=8 if name == "main" else SMALL, color=style.INK)
        each.grid(color=style.GRID, lw=0.6)
        each.set_axisbelow(True)
        each.tick_params(labelsize=SMALL, color=style.FAINT, labelcolor=style.INK)
        each.tick_params(axis="x", labelbottom=name == names[-1])
        each.spines[["top", "right"]].set_visible(False)
        each.spines[["left", "bottom"]].set_color(style.FAINT)
        for line in view.plain:
            each.axvline(line.cost / view.axis.unit, c=style.PLAIN, lw=0.8, ls=":", zorder=1)
    if "paper" in axes:
        axes["paper"].yaxis.set_major_locator(MaxNLocator(3))
    if "pruned" in axes:
        axes["pruned"].set_yticks(view.pruned_ticks)
    for line in view.plain:
        axes[names[0]].annotate(
            line.label,
            (line.cost / view.axis.unit, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            color=style.INK,
        )
    axes[names[-1]].set_xlabel(
        f"{view.axis.title} {view.axis.explanation}", fontsize=8, color=style.INK
    )
    figure.align_ylabels(list(axes.values()))


def _write_heading(
    figure: Figure, view: FrontView, lines: Iterable[str], artists: list[Artist], height: float
) -> None:
    left = 0.012
    figure.text(left, 1 - 0.1 / height, view.title, fontsize=10, va="top", weight="bold")
    below = 0.35
    for line in lines:
        figure.text(left, 1 - below / height, line, fontsize=SMALL, va="top", color=style.SOFT)
        below += LINE_INCHES
    if artists:
        figure.legend(
            handles=artists,
            loc="upper left",
            bbox_to_anchor=(left - 0.006, 1 - below / height),
            ncols=len(artists),
            fontsize=SMALL,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.2,
            borderpad=0,
        )


def _write_key(figure: Figure, key: Sequence[Sequence[str]], height: float, below: float) -> None:
    columns = ((LEFT, "left"), (LEFT + 0.07, "left"), (0.87, "right"), (RIGHT, "right"))
    for number, line in enumerate(key):
        y = 1 - (below + LINE_INCHES * number) / height
        for text, (x, side) in zip(line, columns, strict=True):
            figure.text(
                x,
                y,
                text,
                fontsize=SMALL * min(1, KEY_LETTERS / max(len(text), 1)),
                va="top",
                ha=side,
                color=style.SOFT if number == 0 else style.INK,
            )


def _xy(view: FrontView, points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.cost / view.axis.unit for point in points], [point.y for point in points]


def _in_units(view: FrontView) -> list[tuple[float, float]]:
    return [(cost / view.axis.unit, accuracy) for cost, accuracy in view.stairs]
