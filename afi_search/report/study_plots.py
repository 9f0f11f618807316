"""The figures of a study's page besides the front."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from pandas import DataFrame, Series

from afi_search.formatting import plural, signed
from afi_search.report import style
from afi_search.report.findings import choice_table, in_order_of_ends, levels_of
from afi_search.report.view import FAILED, FRONT, OTHERS, PRUNED, UNFINISHED, StudyView
from afi_search.study.pareto import dominated_shares, points

ENDS = {
    FRONT: (style.FRONT, 1.0, 2, "circle"),
    OTHERS: (style.OTHERS, 0.7, 1, "circle"),
    PRUNED: (style.SOFT, 0.6, 1, "x-thin-open"),
    FAILED: (style.FAILED, 0.9, 1, "x"),
    UNFINISHED: (style.INK, 0.6, 1, "circle-open"),
}
"""What became of a trial -> colour, opacity and width of its curve, and the mark at its end."""
SHADES = {
    "accuracy: lowest quarter": "#d5dbe1",
    "accuracy: third quarter": "#a9b5c1",
    "accuracy: second quarter": "#7b8794",
    "accuracy: highest quarter": "#3e4c59",
    FRONT: style.FRONT,
}
BARS = {
    "full fidelity": style.FRONT,
    FAILED: style.FAILED,
    PRUNED: style.OTHERS,
    UNFINISHED: style.INK,
    "waiting": style.GRID,
}
NOT_APPLICABLE = "\N{EN DASH}"
ENDED = ("complete", "pruned", "failed")
MOST_CHOICES = 16
MOST_TICKS = 12
SMALLEST_BAR = pd.Timedelta(seconds=1)


def hypervolume_figures(view: StudyView, reference: Sequence[float]) -> dict[str, go.Figure]:
    """Draw the front's hypervolume, in % of what a perfect accuracy at no cost would give.

    Over `trials` that ended, and over `hours` of training.
    """
    ended = in_order_of_ends(view.records[view.records["state"].isin(ENDED)])
    reached = np.flatnonzero(ended.index.isin(view.full.index))
    shares = 100 * dominated_shares(points(ended.iloc[reached]), reference)
    trials = np.arange(1, len(ended) + 1)
    hours = ended["seconds"].to_numpy(dtype=float).cumsum() / 3600
    figures = {}
    for over, title, place in (
        ("trials", "trials ended", trials),
        ("hours", "hours of training, summed over trials", hours),
    ):
        steps = go.Scatter(
            x=[0, *place[reached], place[-1]],
            y=[0, *shares, shares[-1]],
            mode="lines",
            line={"shape": "hv", "color": style.FRONT, "width": 2},
            fill="tozeroy",
            fillcolor="rgba(0, 114, 178, 0.08)",
            hovertemplate=f"%{{y:.2f}} % after %{{x:.4~g}} {over}<extra></extra>",
        )
        what = "hypervolume, % of the box"
        figures[over] = figure = style.apply_theme(go.Figure(steps), title, what, showlegend=False)
        whole_ticks = over == "trials" and len(ended) <= MOST_TICKS
        figure.update_xaxes(rangemode="tozero", dtick=1 if whole_ticks else None)
        above = shares[shares > 0]
        if len(above):
            room = max(0.15 * (above[-1] - above[0]), 0.02 * above[-1])
            low = max(0.0, above[0] - room)
            begins = f"{what}<br>(the axis begins at {low:.1f} %)"
            figure.update_yaxes(range=[low, above[-1] + room], title_text=begins)
    return figures


def curves_figure(view: StudyView) -> go.Figure:
    """Draw the accuracy of every trial after each epoch, with a mark where it ended.

    A kind of trial is one trace of curves and one of marks, however many trials there are.
    """
    trained = view.records["curve"].map(bool)
    figure = go.Figure()
    for rank, (kind, (colour, opacity, width, symbol)) in reversed(list(enumerate(ENDS.items()))):
        rows = view.records[trained & (view.kinds == kind)]  # later traces lie above earlier ones
        if rows.empty:
            continue
        curves = [100 * np.array(curve) for curve in rows["curve"]]
        epochs = [np.arange(1, 1 + len(curve)) for curve in curves]
        ends = [of[-1:] for of in epochs], [of[-1:] for of in curves]
        edge = {"width": 1 if "x" in symbol else 0}
        for (xs, ys), mode in (((epochs, curves), "lines"), (ends, "lines+markers")):
            figure.add_scatter(
                **_lines(rows["number"], xs, ys, kind),
                mode=mode,
                line={"color": colour, "width": width},
                marker={"symbol": symbol, "size": 7, "line": edge},
                opacity=opacity,
                legendrank=rank,
                showlegend=ys is not curves,
            )
    style.apply_theme(figure, "epoch", "validation accuracy, %", showlegend=True)
    last, dtick = view.info.epochs, 1 if view.info.epochs <= MOST_TICKS else None
    return figure.update_xaxes(range=[1 - 0.04 * last, 1.04 * last], dtick=dtick)


def _lines(
    numbers: Series, xs: Sequence[np.ndarray], ys: Sequence[np.ndarray], kind: str
) -> dict[str, Any]:
    """Return what makes one trace of many lines, a trial each, with a gap after each.

    From `meta`, trials and numbers of their points, the page says at each what it knows of it.
    """
    gap = np.array([np.nan])
    return {
        "x": np.concatenate([part for x in xs for part in (x, gap)]),
        "y": np.concatenate([part for y in ys for part in (y, gap)]),
        "meta": {"trials": numbers.tolist(), "points": [len(y) + 1 for y in ys]},
        "hoverinfo": "text",
        "name": kind,
        "legendgroup": kind,
    }


def parallel_figure(view: StudyView) -> go.Figure:
    """Draw each trial of full fidelity as a line through its choices, its cost and its accuracy.

    Unlike Optuna's picture, levels have their order, and lines of one level lie side by side.
    """
    axis, full = view.axis, view.full.sort_values("accuracy", kind="stable")
    table = choice_table(full)
    spread = np.linspace(-0.32, 0.32, len(full))
    heights: dict[str, np.ndarray] = {}
    labels: list[tuple[int, float, str]] = []
    for position, name in enumerate(table.columns):
        levels = [*([""] if table[name].isna().any() else []), *levels_of(table, name)]
        level = table[name].fillna("").map(levels.index).to_numpy(dtype=float)
        heights[name] = (level + 0.5 + spread) / len(levels)
        labels += [(position, (n + 0.5) / len(levels), t) for n, t in enumerate(levels)]
    ends = {axis.heading: full[axis.column] / axis.unit, "accuracy, %": 100 * full["accuracy"]}
    for name, values in ends.items():
        low, high = values.min(), values.max()
        shares = (values - low) / (high - low) if high > low else 0.5 + 0 * values
        labels += [(len(heights), 0, f"{low:.1f}"), (len(heights), 1, f"{high:.1f}")]
        heights[name] = shares.to_numpy(dtype=float)
    lines = np.column_stack(list(heights.values()))
    quarters = np.array(list(SHADES))[np.arange(len(full)) * 4 // len(full)]
    kinds = np.where(full.index.isin(view.front.index), FRONT, quarters)
    figure = go.Figure()
    for rank, (kind, colour) in enumerate(SHADES.items()):  # later traces lie above earlier ones
        if (of_kind := kinds == kind).any():
            xs = [np.arange(len(heights))] * of_kind.sum()
            figure.add_scatter(
                **_lines(full["number"][of_kind], xs, list(lines[of_kind]), kind),
                mode="lines",
                line={"color": colour, "width": 2 if kind == FRONT else 1},
                legendrank=-rank,  # as accurate ones lie above others
                showlegend=True,
            )
    choices = len(table.columns)
    figure.update_layout(  # at once: plotly copies all of them for each that is added
        annotations=[
            {
                "x": x,
                "y": y,
                "text": text or NOT_APPLICABLE,
                "showarrow": False,
                "font": {"size": 11},
                "bgcolor": "rgba(255, 255, 255, 0.8)",
                "xanchor": "center" if x < choices else "left",
                "xshift": 0 if x < choices else 6,
            }
            for x, y, text in labels
        ]
    )
    style.apply_theme(figure, None, None, dragmode=False, margin_l=20, margin_r=56, margin_b=56)
    figure.update_xaxes(
        range=[-0.5, len(heights) - 0.5],
        tickvals=list(range(len(heights))),
        ticktext=["<br>".join(name.rsplit(" ", 1)) for name in heights],
        tickangle=0,
        gridcolor=style.FAINT,
        fixedrange=True,
    )
    return figure.update_yaxes(visible=False, range=[-0.05, 1.05], fixedrange=True)


def importance_figure(table: DataFrame, low: DataFrame, high: DataFrame) -> go.Figure:
    """Draw how much each choice matters, the most important at the top, with its interval."""
    names = {"accuracy": "for accuracy, whatever the cost", "front": "for being near the front"}
    shown = 100 * table.head(MOST_CHOICES).iloc[::-1][list(names)].rename(columns=names)
    colours = [style.OTHERS, style.FRONT]
    figure = px.bar(shown, orientation="h", barmode="group", color_discrete_sequence=colours)
    figure.update_traces(hovertemplate="%{y}: %{x:.1f} %<extra></extra>")
    for bars, column in zip(figure.data, names, strict=True):
        ends = (100 * of.loc[shown.index, column] for of in (low, table, high))
        bars.error_x = style.error_bars(*ends, color=style.SOFT, width=2)
    looks = {"margin_l": 118, "bargap": 0.25, "legend_traceorder": "reversed"}
    style.apply_theme(figure, "importance, %", None, **looks)
    return figure.update_xaxes(rangemode="tozero").update_yaxes(showgrid=False)


def stage_figure(effects: DataFrame, plain_macs: float) -> go.Figure:
    """Draw the change of accuracy by stage and width, each with its change of MACs beside it."""
    drawn = effects.assign(
        x=effects["stage"] + effects["width"].map({"base": -0.15, "B": 0.15}),
        y=100 * effects["accuracy"],
        error=100 * effects["error"],
        name="width " + effects["width"],
        macs=[f"{signed(100 * macs / plain_macs, 1)} %" for macs in effects["macs"]],
    )
    figure = px.scatter(
        drawn.sort_values(["width", "stage"], ascending=[False, True]),
        x="x",
        y="y",
        error_y="error",
        color="name",
        symbol="name",
        text="macs",
        custom_data=["stage", "width", "trials"],
        color_discrete_map={"width base": style.FRONT, "width B": style.PAPER},
        symbol_map={"width base": "circle", "width B": "square"},
    )
    figure.update_traces(
        error_y={"thickness": 1.2, "width": 4},
        textposition="middle right",
        textfont={"size": 10, "color": style.SOFT},
        marker={"size": 10},
        hovertemplate="stage %{customdata[0]}, width %{customdata[1]}, in %{customdata[2]} trials"
        "<br>%{y:+.2f} points, %{text} MACs<extra></extra>",
    )
    style.apply_theme(figure, None, "change of accuracy, points")
    stages = sorted(set(effects["stage"]))
    figure.update_xaxes(
        range=[stages[0] - 0.5, stages[-1] + 0.7],
        tickvals=stages,
        ticktext=[f"stage {stage}" for stage in stages],
        showgrid=False,
    )
    return figure.add_hline(y=0, line={"color": style.FAINT, "width": 1})


def timeline_figure(view: StudyView) -> go.Figure:
    """Draw when each trial ran, and how it ended; one that goes on, up to the last that is known.

    Optuna's picture takes a second for 10,000 trials.
    """
    started = view.records[view.records["started"].notna()].sort_values("number")
    last = started[["started", "finished"]].max().max()
    still = started["started"].mask(started["state"] == "running", last) + SMALLEST_BAR
    state = started["state"].replace({"complete": "full fidelity", "running": UNFINISHED})
    told = [
        f"#{number} {escape(architecture)}<br>{plural(epochs, 'epoch')}"
        for number, architecture, epochs in started[["number", "architecture", "epochs"]].to_numpy()
    ]
    figure = px.timeline(
        started.assign(state=state, end=started["finished"].fillna(still), told=told),
        x_start="started",
        x_end="end",
        y="number",
        color="state",
        custom_data="told",
        color_discrete_map=BARS,
        category_orders={"state": list(BARS)},
    )
    for bars in figure.data:
        bars.hovertemplate = f"%{{customdata[0]}}<extra>{bars.name}</extra>"
    style.apply_theme(figure, "time", "trial", showlegend=True, bargap=0.1, margin_b=56)
    return figure.update_xaxes(type="date")
