"""The picture of a front, as a plotly figure: the one description that every renderer draws.

It has up to three panels over one axis of cost, the study's first. The main one holds the trials of
full fidelity and their front. The paper's points are another measure; where they lie far from the
trials they get a panel of their own above, so that neither squeezes the other. Pruned trials have
no accuracy that could be compared, so the panel below shows their cost against the epoch after
which they were stopped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pandas import DataFrame, Series
from plotly.subplots import make_subplots

from afi_search.formatting import plural
from afi_search.report import style
from afi_search.report.view import FRONT, OTHERS, StudyView, hover

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

LABEL, NUMBER = (0.12, 0.09), (0.05, 0.055)
"""The room that a point's label takes, whole or the number alone: shares of width and height."""
BESIDE = 0.005
"""A label is so far from its point, as a share of the width."""
NAME_GAP = 0.16
"""The names of two plain backbones are so far apart, as a share of the width."""
FAR = 2.5
"""The paper's points lie far off when a common axis would span so many times what either does."""
SMALLEST_SPAN = 4.0
"""An axis of accuracy spans at least so many per cent."""

Range = tuple[float, float]
Box = tuple[float, float, float, float]
"""Its left, bottom, right and top ends, as shares of a panel."""


def front_figure(view: StudyView) -> go.Figure:
    """Describe the picture of a study's front, with a trace for each kind of point in MARKERS.

    Accuracies are in per cent, costs in the unit of their axis, and every point tells at the
    pointer what is known of it.
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
    paper_epochs = map(str, sorted({r.dataset.epochs for r, _ in view.references.paper}))
    for name in DRAWN:
        rows = points[name]
        if rows.empty:
            continue
        row = panels.index(places.get(name, "main")) + 1
        if name == FRONT:  # the best accuracy that can be had for at most so much
            stairs = rows["y"].cummax().tolist()
            figure.add_scatter(
                x=[*rows["x"], x_range[1]],
                y=[*stairs, stairs[-1]],
                mode="lines",
                line={"color": style.FRONT, "width": 1.5, "shape": "hv"},
                legendgroup=FRONT,
                showlegend=False,
                hoverinfo="skip",
                row=row,
                col=1,
            )
        figure.add_scatter(
            x=list(rows["x"]),
            y=list(rows["y"]),
            hovertext=list(rows["hover"]),
            hoverinfo="text",
            name=f"{PAPER}, {' or '.join(paper_epochs)} epochs" if name == PAPER else name,
            mode="markers",
            marker=MARKERS[name],
            legendrank=list(MARKERS).index(name),
            row=row,
            col=1,
        )
    if len(best):
        labels = _labels(best, view.gains, x_range, axes["main"]["range"])
        _label_front(figure, best, labels)
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
    style.apply_theme(figure, None, None, margin_b=58)
    figure.update_xaxes(range=x_range)
    figure.update_xaxes(title_text=view.axis.label, row=len(axes))
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


def _label_front(figure: go.Figure, best: DataFrame, labels: Sequence[tuple[str, str]]) -> None:
    figure.update_traces(
        selector={"name": FRONT},
        mode="markers+text",
        text=[text for text, _ in labels],
        textposition=[f"top {side}" for _, side in labels],
        textfont={"color": style.FRONT, "size": 11},
        legendgroup=FRONT,
        cliponaxis=False,
        error_y=style.error_bars(
            *(best[end] for end in ("low", "y", "high")),
            color=style.INTERVALS,
            visible=bool((best["high"] > best["low"]).any()),
        ),
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


def _far_apart(paper: Series, trials: Series) -> bool:
    """Tell whether either would be squeezed into a small part of a common axis."""
    spans = [float(values.max() - values.min()) for values in (paper, trials)]
    together = pd.concat([paper, trials])
    return together.max() - together.min() > FAR * max(*spans, SMALLEST_SPAN)


def _labels(
    best: DataFrame, gains: Mapping[Any, str], x_range: Range, y_range: Range
) -> list[tuple[str, str]]:
    """Return a text and its side for each point, given out from the most accurate backwards.

    A text is the trial's number with what it has over the plain backbone, the number alone, or
    nothing: what neither runs into another label, nor into the interval of another point.
    """
    width, height = (high - low for low, high in (x_range, y_range))
    at = (best["x"] - x_range[0]) / width
    ys, lows, highs = ((best[name] - y_range[0]) / height for name in ("y", "low", "high"))
    foot = lows.combine(ys.shift(), min)  # the line of the front rises there
    taken = list(zip(at, foot, at, highs, strict=True))
    labels = [("", "left")] * len(best)
    for position in reversed(range(len(best))):
        number = f"#{best['number'].iloc[position]}"
        whole = f"{number} {gains.get(best.index[position], '')}".replace(" (", "<br>(").rstrip()
        x, bottom = at.iloc[position], ys.iloc[position]
        for (text, (wide, high)), side in itertools.product(
            ((whole, LABEL), (number, NUMBER)), ("right", "left")
        ):
            left = x + BESIDE if side == "right" else x - BESIDE - wide
            box = (left, bottom, left + wide, bottom + high)
            if 0 <= left <= 1 - wide and not any(_overlap(box, other) for other in taken):
                labels[position] = text, side
                taken.append(box)
                break
    return labels


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _padded(values: Series, share: float, least: float) -> Range:
    """Return the range of the values, wider by a share of it, or by `least`, on both sides."""
    if values.empty:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = max(share * (high - low), least)
    return low - margin, high + margin
