"""The picture of a front, as a plotly figure: the one description that every renderer draws.

It has up to three panels over one axis of cost, the study's first. The main one holds the trials of
full fidelity and their front. The paper's points are another measure; where they lie far from the
trials they get a panel of their own above, so that neither squeezes the other. Pruned trials have
no accuracy that could be compared, so the panel below shows their cost against the epoch after
which they were stopped.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from pandas import DataFrame, Series
from plotly.subplots import make_subplots
from scipy.stats import binomtest

from afi_search.cost import Cost
from afi_search.formatting import against, count, mega, percent
from afi_search.report import style
from afi_search.report.axis import CostAxis, axis_named, axis_of
from afi_search.space.objective import own_measures
from afi_search.study.info import StudyInfo
from afi_search.study.paper import PaperResult
from afi_search.study.pareto import comparable, front
from afi_search.study.reference import References

FRONT, OTHERS, PLAIN = "front", "other trials of full fidelity", "plain backbone, trained here"
PAPER, PRUNED = "paper, test accuracy", "pruned early"
MARKERS: dict[str, dict[str, Any]] = {
    FRONT: {"color": style.FRONT, "size": 10, "line": {"color": "white", "width": 1}},
    OTHERS: {"color": style.OTHERS, "size": 7, "line": {"color": "white", "width": 0.5}},
    PLAIN: {
        "symbol": "star",
        "color": style.PLAIN,
        "size": 14,
        "line": {"color": "white", "width": 1},
    },
    PAPER: {
        "symbol": "diamond-open",
        "color": style.PAPER,
        "size": 10,
        "line": {"color": style.PAPER, "width": 2},
    },
    PRUNED: {
        "symbol": "line-ns-open",
        "color": style.PRUNED,
        "size": 8,
        "opacity": 0.5,
        "line": {"color": style.PRUNED, "width": 1.5},
    },
}
"""The kinds of points, in the order of the legend."""
DRAWN = (OTHERS, FRONT, PLAIN, PAPER, PRUNED)
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
HOVER_LETTERS = 44


def front_figure(records: DataFrame, info: StudyInfo, references: References) -> go.Figure:
    """Describe the picture of a study's front.

    Args:
        records: the ledger's trials.
        info: the study's facts.
        references: the plain backbones and the paper's points.

    Returns:
        A figure with a trace for each kind of point in MARKERS that there is. Accuracies are in per
        cent, costs in the unit of their axis, and every point tells at the pointer what is known
        of it.

    Raises:
        ValueError: a column of `records` is missing.
    """
    axis, points = axis_of(records), _points(records, info, references)
    paper, pruned, best = points[PAPER]["y"], points[PRUNED]["y"], points[FRONT]
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
    plain = {
        name: cost / axis.unit
        for name, costs in references.plain.items()
        if (cost := costs.figures().get(axis.column)) is not None
    }
    costs = pd.concat([pd.Series(plain), *(rows["x"] for rows in points.values())]).astype(float)
    x_range = _padded(costs, 0.07, 0.03 * costs.max() if len(costs) else 1.0)

    panels = [*(["paper"] if apart else []), "main", *(["pruned"] if len(pruned) else [])]
    figure = _panels({name: axes[name] for name in panels}, axis, x_range)
    places = {PAPER: "paper" if apart else "main", PRUNED: "pruned"}
    for name in DRAWN:
        rows = points[name]
        if rows.empty:
            continue
        if name == FRONT:
            figure.add_trace(_stairs(rows, x_range), row=panels.index("main") + 1, col=1)
        trace = go.Scatter(
            x=list(rows["x"]),
            y=list(rows["y"]),
            hovertext=list(rows["hover"]),
            hoverinfo="text",
            name=_paper_name(references) if name == PAPER else name,
            mode="markers",
            marker=MARKERS[name],
            legendrank=list(MARKERS).index(name),
        )
        figure.add_trace(trace, row=panels.index(places.get(name, "main")) + 1, col=1)
    if len(best):
        _label_front(figure, best, info, x_range, axes["main"]["range"])
    _name_plain_backbones(figure, plain, x_range, len(panels))
    if full.empty:
        _write_message(figure, records, info, panels.index("main") + 1)
    return figure


def _panels(
    axes: Mapping[str, Mapping[str, Any]], axis: CostAxis, x_range: tuple[float, float]
) -> go.Figure:
    """Return empty panels, by their names, that stand on one another over one axis of cost."""
    figure = make_subplots(
        rows=len(axes),
        shared_xaxes=True,
        vertical_spacing=0.035,
        row_heights=[PANELS[name][1] for name in axes],
    )
    style.apply_theme(figure, margin={"l": 62, "r": 16, "t": 24, "b": 58})
    figure.update_xaxes(range=x_range)
    explanation = f"<span style='font-size:0.85em'>{axis.explanation}</span>"
    figure.update_xaxes(title_text=f"{axis.title}<br>{explanation}", row=len(axes))
    for row, (name, looks) in enumerate(axes.items(), start=1):
        figure.update_yaxes(title_text=PANELS[name][0], row=row, **looks)
    return figure


def heading(info: StudyInfo) -> str:
    """Say in a line what the picture shows."""
    many = len(info.backbones) > 1
    what = f"{len(info.backbones)} backbones" if many else info.backbones[0]
    return f"{info.name}: accuracy against cost of {what} with AFI on {info.dataset}"


def facts(records: DataFrame, info: StudyInfo) -> list[str]:
    """Say in short parts what was run."""
    states = records["state"].value_counts()
    ended = [f"{len(comparable(records))} of full fidelity ({plural(info.epochs, 'epoch')})"]
    ended += [
        f"{states[name]} {name}"
        for name in ("pruned", "failed", "running", "waiting")
        if name in states
    ]
    numbers = {"training": info.train_images, "validation": info.validation_images}
    images = [f"{number:,} {what}" for what, number in numbers.items() if number is not None]
    parts = [
        f"{plural(len(records), 'trial')}: {', '.join(ended)}",
        f"{' and '.join(images)} images" if images else "",
        f"preset {info.preset}" if info.preset else "",
        info.device,
        f"seed {info.seed}",
    ]
    return [part for part in parts if part]


def _points(records: DataFrame, info: StudyInfo, references: References) -> dict[str, DataFrame]:
    """Return what is drawn by its kind: x, y, the ends of an interval around y, label and hover."""
    axis, best = axis_of(records), front(records)

    def placed(rows: DataFrame) -> DataFrame:
        trials = rows.to_dict("records")
        ends = [interval(row["accuracy"], info) for row in trials]
        return rows.assign(
            x=rows[axis.column] / axis.unit,
            y=100 * rows["accuracy"],
            low=[100 * low for low, _ in ends],
            high=[100 * high for _, high in ends],
            hover=[hover(describe(row, info, references)) for row in trials],
        )

    full = placed(comparable(records))
    pruned = placed(records[(records["state"] == "pruned") & (records["epochs"] > 0)])
    plain = full["architecture"].isin(list(references.plain))
    paper = [
        (cost / axis.unit, result.top1, hover(_describe_paper(result, costs, references)))
        for result, costs in references.paper
        if (cost := costs.figures().get(axis.column)) is not None
    ]
    return {
        FRONT: full.loc[best.index],
        OTHERS: full[~full.index.isin(best.index) & ~plain],
        PLAIN: full[plain],
        PAPER: DataFrame(paper, columns=["x", "y", "hover"]),
        PRUNED: pruned.assign(y=pruned["epochs"]),
    }


def _stairs(best: DataFrame, x_range: tuple[float, float]) -> go.Scatter:
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


def _label_front(
    figure: go.Figure,
    best: DataFrame,
    info: StudyInfo,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> None:
    """Add to the front's points their intervals, and their labels where there is room."""
    free = _free(list(zip(best["x"], best["y"], strict=True)), x_range, y_range)
    figure.update_traces(
        selector={"name": FRONT},
        mode="markers+text",
        text=[
            f"#{number}" if fits else "" for number, fits in zip(best["number"], free, strict=True)
        ],
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
            "visible": info.validation_images is not None,
        },
    )


def _name_plain_backbones(
    figure: go.Figure, costs: Mapping[str, float], x_range: tuple[float, float], rows: int
) -> None:
    """Draw a line where each plain backbone stands, with its name where there is room for it."""
    room_from = x_range[0]
    for name, cost in sorted(costs.items(), key=lambda item: item[1]):
        looks = {"color": style.PLAIN, "width": 1, "dash": "dot"}
        for row in range(1, rows + 1):
            figure.add_vline(x=cost, line=looks, layer="below", row=row, col=1)
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


def _write_message(figure: go.Figure, records: DataFrame, info: StudyInfo, row: int) -> None:
    """Say in an empty panel why there is no front."""
    nothing = f"No trial has reached full fidelity<br>({plural(info.epochs, 'epoch')}) yet."
    number = "" if row == 1 else row
    figure.add_trace(  # an axis without a trace is not drawn at all
        go.Scatter(x=[0], y=[None], showlegend=False), row=row, col=1
    )
    figure.add_annotation(
        x=0.5,
        y=0.5,
        xref="x domain",
        yref=f"y{number} domain",
        text="No trial has been started yet." if records.empty else nothing,
        showarrow=False,
        bgcolor="white",
        borderpad=6,
        font={"size": 14},
    )


def describe(row: Mapping[Any, Any], info: StudyInfo, references: References) -> list[str]:
    """Say what is known of a trial, in short lines; the architecture comes first."""
    accuracy = f"{percent(row['accuracy'])} % validation accuracy"
    if not row["full"]:
        accuracy += f" after {row['epochs']} of {info.epochs} epochs"
    elif info.validation_images:
        low, high = interval(row["accuracy"], info)
        accuracy += f" (95 %: {percent(low)} to {percent(high)})"
    return [
        row["architecture"],
        accuracy,
        *_describe_costs(row, references.plain[row["backbone"]]),
        f"trial #{row['number']}, {plural(row['epochs'], 'epoch')}, seed {row['seed']}",
    ]


def _describe_paper(result: PaperResult, cost: Cost, references: References) -> list[str]:
    return [
        f"{result.model}, the paper's own result",
        result.architecture,
        f"{result.top1:.2f} % test accuracy after {result.dataset.epochs} epochs",
        *_describe_costs(cost.figures(), references.plain[result.backbone]),
    ]


def _describe_costs(costs: Mapping[Any, Any], plain: Cost) -> list[str]:
    return [
        f"{mega(costs['macs'])} M MACs per image ({against(costs['macs'], plain.macs)} vs plain)",
        *(axis_named(name).say(costs[name]) for name in measured(costs)),
        f"{count(costs['params'])} parameters ({against(costs['params'], plain.params)} vs plain)",
        f"{costs['paper_gflops']:.2f} G FLOPs as the paper counts (batch 32)",
    ]


def measured(row: Mapping[Any, Any]) -> list[str]:
    """Return which of the costs that only some studies ask for are known."""
    known = {name: row.get(name) for name in ("memory", "latency", *own_measures())}
    return [name for name, cost in known.items() if cost is not None and math.isfinite(cost)]


def hover(lines: Sequence[str]) -> str:
    """Return lines as plotly shows them at the pointer, the first one in bold and folded."""
    folded = textwrap.wrap(lines[0], HOVER_LETTERS, break_on_hyphens=False)
    head = "<br>".join(map(escape, folded))
    return "<br>".join([f"<b>{head}</b>", *map(escape, lines[1:])])


def interval(accuracy: float, info: StudyInfo) -> tuple[float, float]:
    """Return the 95 % interval (Wilson's) of an accuracy as counted on the validation images.

    It holds the error of drawing these images alone; another seed would move the accuracy too.
    Where their number is not known, both ends are the accuracy itself.
    """
    if not info.validation_images or math.isnan(accuracy):
        return accuracy, accuracy
    return _wilson(round(accuracy * info.validation_images), info.validation_images)


@cache
def _wilson(right: int, images: int) -> tuple[float, float]:
    ends = binomtest(right, images).proportion_ci(method="wilson")
    return float(ends.low), float(ends.high)


def plural(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _paper_name(references: References) -> str:
    epochs = sorted({result.dataset.epochs for result, _ in references.paper})
    return f"{PAPER}, {' or '.join(map(str, epochs))} epochs"


def _far_apart(paper: Series, trials: Series) -> bool:
    """Tell whether either would be squeezed into a small part of a common axis."""
    spans = [float(values.max() - values.min()) for values in (paper, trials)]
    together = pd.concat([paper, trials])
    return together.max() - together.min() > FAR * max(*spans, SMALLEST_SPAN)


def _free(
    points: Sequence[tuple[float, float]],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
) -> list[bool]:
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


def _padded(values: Series, share: float, least: float) -> tuple[float, float]:
    """Return the range of the values, wider by a share of it, or by `least`, on both sides."""
    if values.empty:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    margin = max(share * (high - low), least)
    return low - margin, high + margin
