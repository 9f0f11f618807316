"""The picture of a front, as a plotly figure: the one description that every renderer draws.

It has up to three panels over one axis of cost, the study's first. The main one holds the trials of
full fidelity and their front. The paper's points are another measure; where they lie far from the
trials they get a panel of their own above, so that neither squeezes the other. Pruned trials have
no accuracy that could be compared, so the panel below shows their cost against the epoch after
which they were stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pandas import DataFrame, Series
from plotly.subplots import make_subplots

from afi_search.report import style
from afi_search.report.view import FRONT, OTHERS, StudyView, hover, plural

PLAIN, PAPER = "plain backbone, trained here", "paper, test accuracy"
PRUNED_EARLY = "pruned early"


def _marker(symbol: str | None, color: str, size: int, edge: str, width: float) -> dict[str, Any]:
    return {"symbol": symbol, "color": color, "size": size, "line": {"color": edge, "width": width}}


MARKERS: dict[str, dict[str, Any]] = {
    FRONT: _marker(None, style.FRONT, 10, "white", 1),
    OTHERS: _marker(None, style.OTHERS, 7, "white", 0.5),
    PLAIN: _marker("star", style.PLAIN, 14, "white", 1),
    PAPER: _marker("diamond-open", style.PAPER, 10, style.PAPER, 2),
    PRUNED_EARLY: _marker("line-ns-open", style.PRUNED, 8, style.PRUNED, 1.5) | {"opacity": 0.5},
}
"""The kinds of points, in the order of the legend."""
DRAWN = (OTHERS, FRONT, PLAIN, PAPER, PRUNED_EARLY)
"""The kinds of points, from the lowest to the topmost."""
PANELS = {
    "paper": ("paper, %", 0.2),
    "main": ("validation accuracy, %", 0.65),
    "pruned": ("pruned<br>after epoch", 0.15),
}
"""Panel -> the title of its axis and its share of the height, from top to bottom."""

LABEL_GAP = (0.05, 0.055)
"""Labels of points are so far apart, as shares of the panel's width or height."""
NAME_GAP = 0.16
"""The names of two plain backbones are so far apart, as a share of the width."""
FAR = 2.5
"""The paper's points lie far off when a common axis would span so many times what either does."""
SMALLEST_SPAN = 4.0
"""An axis of accuracy spans at least so many per cent."""

Range = tuple[float, float]


def front_figure(view: StudyView) -> go.Figure:
    """Describe the picture of a study's front.

    Returns:
        A figure with a trace for each kind of point in MARKERS that there is. Accuracies are in per
        cent, costs in the unit of their axis, and every point tells at the pointer what is known
        of it.
    """
    points = _points(view)
    paper, pruned, best = points[PAPER]["y"], points[PRUNED_EARLY]["y"], points[FRONT]
    full = pd.concat([points[name]["y"] for name in (FRONT, OTHERS, PLAIN)])
    apart = len(paper) > 0 and (full.empty or _far_apart(paper, full))
    accuracies = pd.concat([full, best["low"], best["high"], *([] if apart else [paper])])
    low, high = _padded(accuracies, 0.08, SMALLEST_SPAN / 2)
    epochs = sorted(set(pruned))
    axes: dict[str, dict[str, Any]] = {
        "paper": {"range": _padded(paper, 0.35, SMALLEST_SPAN / 2), "nticks": 4},
        "main": {"range": (0, 100) if accuracies.empty else (max(low, -1), min(high, 101))},
        "pruned": {
            "range": (0, 1.4 * max(epochs, default=1)),
            "tickvals": epochs[:: -max(1, math.ceil(len(epochs) / 5))][::-1],
        },
    }
    panels = [*(["paper"] if apart else []), "main", *(["pruned"] if len(pruned) else [])]
    plain = {
        name: cost / view.axis.unit
        for name, costs in view.references.plain.items()
        if (cost := costs.figures().get(view.axis.column)) is not None
    }
    costs = pd.concat([Series(plain), *(rows["x"] for rows in points.values())]).astype(float)
    x_range = _padded(costs, 0.07, 0.03 * costs.max() if len(costs) else 1.0)

    figure = _panels({name: axes[name] for name in panels}, view, x_range)
    places = {PAPER: "paper" if apart else "main", PRUNED_EARLY: "pruned"}
    for name in DRAWN:
        rows = points[name]
        if rows.empty:
            continue
        row = panels.index(places.get(name, "main")) + 1
        if name == FRONT:
            figure.add_trace(_stairs(rows, x_range), row=row, col=1)
        figure.add_scatter(
            x=list(rows["x"]),
            y=list(rows["y"]),
            hovertext=list(rows["hover"]),
            hoverinfo="text",
            name=_paper_name(view) if name == PAPER else name,
            mode="markers",
            marker=MARKERS[name],
            legendrank=list(MARKERS).index(name),
            row=row,
            col=1,
        )
    if len(best):
        _label_front(figure, best, x_range, axes["main"]["range"])
    _name_plain_backbones(figure, plain, x_range)
    if full.empty:
        _write_message(figure, view, panels.index("main") + 1)
    return figure


def _panels(axes: Mapping[str, Mapping[str, Any]], view: StudyView, x_range: Range) -> go.Figure:
    """Return empty panels, by their names, that stand on one another over one axis of cost."""
    figure = make_subplots(
        rows=len(axes),
        shared_xaxes=True,
        vertical_spacing=0.035,
        row_heights=[PANELS[name][1] for name in axes],
    )
    style.apply_theme(figure, margin={"l": 62, "r": 16, "t": 24, "b": 58})
    figure.update_xaxes(range=x_range)
    explanation = f"<span style='font-size:0.85em'>{view.axis.explanation}</span>"
    figure.update_xaxes(title_text=f"{view.axis.title}<br>{explanation}", row=len(axes))
    for row, (name, looks) in enumerate(axes.items(), start=1):
        figure.update_yaxes(title_text=PANELS[name][0], row=row, **looks)
    return figure


def _points(view: StudyView) -> dict[str, DataFrame]:
    """Return what is drawn by its kind: x, y, the ends of an interval around y, and hover."""
    axis, records = view.axis, view.records
    low, high = view.intervals
    drawn = records.assign(
        x=records[axis.column] / axis.unit,
        y=100 * records["accuracy"],
        low=100 * low,
        high=100 * high,
        hover=view.hovers,
    )
    full = drawn.loc[view.full.index]
    pruned = drawn[(drawn["state"] == "pruned") & (drawn["epochs"] > 0)]
    best = full.index.isin(view.front.index)
    plain = full["architecture"].isin(list(view.references.plain))
    paper = []
    for result, cost in view.references.paper:
        if (known := cost.figures()).get(axis.column) is not None:
            lines = [
                f"{result.model}, the paper's own result",
                result.architecture,
                f"{result.top1:.2f} % test accuracy after {result.dataset.epochs} epochs",
                *view.describe_costs(known, view.references.plain[result.backbone]),
            ]
            paper.append((known[axis.column] / axis.unit, result.top1, hover(lines)))
    return {
        FRONT: full.loc[view.front.index],
        OTHERS: full[~best & ~plain],
        PLAIN: full[plain],
        PAPER: DataFrame(paper, columns=["x", "y", "hover"]),
        PRUNED_EARLY: pruned.assign(y=pruned["epochs"]),
    }


def _stairs(best: DataFrame, x_range: Range) -> go.Scatter:
    """Return the line of the best accuracy that can be had for at most so much."""
    stairs = best["y"].cummax().tolist()
    return go.Scatter(
        x=[*best["x"], x_range[1]],
        y=[*stairs, stairs[-1]],
        mode="lines",
        line={"color": style.FRONT, "width": 1.5, "shape": "hv"},
        legendgroup=FRONT,
        showlegend=False,
        hoverinfo="skip",
    )


def _label_front(figure: go.Figure, best: DataFrame, x_range: Range, y_range: Range) -> None:
    """Add to the front's points their intervals, and their labels where there is room."""
    free = _free(list(zip(best["x"], best["y"], strict=True)), x_range, y_range)
    labels = [f"#{n}" if fits else "" for n, fits in zip(best["number"], free, strict=True)]
    figure.update_traces(
        selector={"name": FRONT},
        mode="markers+text",
        text=labels,
        textposition="top left",
        textfont={"color": style.FRONT, "size": 11},
        legendgroup=FRONT,
        cliponaxis=False,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": list(best["high"] - best["y"]),
            "arrayminus": list(best["y"] - best["low"]),
            "color": style.INTERVALS,
            "thickness": 1,
            "width": 3,
            "visible": bool((best["high"] > best["low"]).any()),
        },
    )


def _name_plain_backbones(figure: go.Figure, costs: Mapping[str, float], x_range: Range) -> None:
    """Draw a line where each plain backbone stands, with its name where there is room for it."""
    room_from = x_range[0]
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        looks = {"color": style.PLAIN, "width": 1, "dash": "dot"}
        figure.add_vline(x=cost, line=looks, layer="below")
        if cost >= room_from:
            figure.add_annotation(
                x=cost,
                xref="x",
                y=1,
                yref="y domain",
                yanchor="bottom",
                text=escape(f"plain {name}"),
                showarrow=False,
                font={"size": 11},
            )
            room_from = cost + NAME_GAP * (x_range[1] - x_range[0])


def _write_message(figure: go.Figure, view: StudyView, row: int) -> None:
    """Say in an empty panel why there is no front."""
    nothing = f"No trial has reached full fidelity<br>({plural(view.info.epochs, 'epoch')}) yet."
    # an axis without a trace is not drawn at all
    figure.add_scatter(x=[0], y=[None], showlegend=False, row=row, col=1)
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="x domain",
        yref=f"y{'' if row == 1 else row} domain",
        text="No trial has been started yet." if view.records.empty else nothing,
        showarrow=False,
        bgcolor="white",
        borderpad=6,
        font={"size": 14},
    )


def _paper_name(view: StudyView) -> str:
    epochs = sorted({result.dataset.epochs for result, _ in view.references.paper})
    return f"{PAPER}, {' or '.join(map(str, epochs))} epochs"


def _far_apart(paper: Series, trials: Series) -> bool:
    """Tell whether either would be squeezed into a small part of a common axis."""
    spans = [float(values.max() - values.min()) for values in (paper, trials)]
    together = pd.concat([paper, trials])
    return together.max() - together.min() > FAR * max(*spans, SMALLEST_SPAN)


def _free(points: Sequence[tuple[float, float]], x_range: Range, y_range: Range) -> list[bool]:
    """Tell beside which points there is room for a label, given out from the last backwards."""
    width, height = (high - low for low, high in (x_range, y_range))
    placed: dict[int, tuple[float, float]] = {}
    for position, (x, y) in reversed(list(enumerate(points))):
        if all(
            abs(x - other_x) > LABEL_GAP[0] * width or abs(y - other_y) > LABEL_GAP[1] * height
            for other_x, other_y in placed.values()
        ):
            placed[position] = (x, y)
    return [position in placed for position in range(len(points))]


def _padded(values: Series, share: float, least: float) -> Range:
    """Return the range of the values, wider by a share of it, or by `least`, on both sides."""
    if values.empty:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = max(share * (high - low), least)
    return low - margin, high + margin
