"""The figures of a study's page besides the front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from afi_search.formatting import signed
from afi_search.report import style
from afi_search.report.axis import axis_of
from afi_search.report.canvas import dress
from afi_search.report.choices import choice_table, levels_of
from afi_search.report.effort import KINDS, SAVED, Effort
from afi_search.report.plots import hover
from afi_search.report.stages import StageEffect
from afi_search.report.view import describe
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import comparable
from afi_search.study.reference import Landmarks

FAILED = "#cc79a7"
SHADES = ("#d5dbe1", "#a9b5c1", "#7b8794", "#3e4c59")
EFFORT_COLOURS = dict(zip(KINDS, (style.FRONT, style.OTHERS, FAILED, style.GRID), strict=True))
MOST_CHOICES = 16
MOST_TICKS = 12
NOT_APPLICABLE = "\N{EN DASH}"


def progress_figure(progress: DataFrame, over: str) -> go.Figure:
    """Draw the hypervolume over `trials` or `hours`."""
    title = {"trials": "trials ended", "hours": "hours of training, summed over trials"}[over]
    figure = go.Figure(
        go.Scatter(
            x=[0, *progress[over]],
            y=[0, *(100 * progress["share"])],
            mode="lines",
            line={"shape": "hv", "color": style.FRONT, "width": 2},
            fill="tozeroy",
            fillcolor="rgba(0, 114, 178, 0.08)",
            hovertemplate=f"%{{y:.2f}} % after %{{x:.4~g}} {over}<extra></extra>",
        )
    )
    dress(figure, showlegend=False)
    whole_ticks = over == "trials" and len(progress) <= MOST_TICKS
    figure.update_xaxes(title_text=title, rangemode="tozero", dtick=1 if whole_ticks else None)
    figure.update_yaxes(title_text="hypervolume, % of the box")
    if len(progress) and progress["share"].max() > 0:
        reached = 100 * progress.loc[progress["share"] > 0, "share"]
        room = max(0.15 * (reached.max() - reached.min()), 0.02 * reached.max())
        figure.update_yaxes(range=[reached.min() - room, reached.max() + room])
    return figure


def curves_figure(
    records: DataFrame, best: DataFrame, info: StudyInfo, marks: Landmarks
) -> go.Figure:
    """Draw the accuracy of every trial after each epoch, with a mark where it ended."""
    on_front = records.index.isin(best.index)
    full = records.index.isin(comparable(records).index)
    state = records["state"].to_numpy()
    drawn = records["curve"].map(bool).to_numpy()
    groups = [
        ("other trials of full fidelity", full & ~on_front, style.OTHERS, 0.7, "circle"),
        ("pruned", state == "pruned", style.SOFT, 0.6, "x-thin-open"),
        ("failed", state == "failed", FAILED, 0.9, "x"),
        (
            "not finished",
            (state == "running") | (state == "waiting"),
            style.INK,
            0.6,
            "circle-open",
        ),
        ("front", full & on_front, style.FRONT, 1.0, "circle"),
    ]
    figure = go.Figure()
    for name, chosen, colour, opacity, symbol in groups:
        rows = records.loc[chosen & drawn]
        if rows.empty:
            continue
        epochs: list[float | None] = []
        accuracies: list[float | None] = []
        for curve in rows["curve"]:
            epochs += [*range(1, len(curve) + 1), None]
            accuracies += [*(100 * accuracy for accuracy in curve), None]
        figure.add_trace(
            go.Scatter(
                x=epochs,
                y=accuracies,
                mode="lines",
                line={"color": colour, "width": 2 if name == "front" else 1},
                opacity=opacity,
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=rows["curve"].map(len),
                y=100 * rows["curve"].str[-1],
                name=name,
                legendgroup=name,
                mode="markers",
                opacity=opacity,
                marker={"color": colour, "symbol": symbol, "size": 7},
                hovertext=[hover(describe(row, info, marks)) for row in rows.to_dict("records")],
                hoverinfo="text",
            )
        )
    dress(figure)
    figure.update_xaxes(
        title_text="epoch",
        range=[1 - 0.04 * info.epochs, 1.04 * info.epochs],
        dtick=1 if info.epochs <= MOST_TICKS else None,
    )
    figure.update_yaxes(title_text=style.Y_AXES["main"])
    return figure


def parallel_figure(
    records: DataFrame, best: DataFrame, info: StudyInfo, marks: Landmarks
) -> go.Figure:
    """Draw each trial of full fidelity as a line through its choices, its cost and its accuracy."""
    full = comparable(records).sort_values("accuracy", kind="stable")
    table = choice_table(full)
    spread = np.linspace(-0.32, 0.32, len(full)) if len(full) > 1 else np.zeros(len(full))
    heights: list[np.ndarray] = []
    names: list[str] = []
    figure = go.Figure()
    for position, name in enumerate(table.columns):
        levels = levels_of(table, name)
        if bool(table[name].isna().any()):
            levels = ["", *levels]
        places = {level: place for place, level in enumerate(levels)}
        level_of = table[name].fillna("").map(places).to_numpy(dtype=float)
        heights.append((level_of + 0.5 + spread) / len(levels))
        names.append(name)
        for level, place in places.items():
            figure.add_annotation(
                x=position,
                y=(place + 0.5) / len(levels),
                text=level or NOT_APPLICABLE,
                showarrow=False,
                font={"size": 11},
                bgcolor="rgba(255, 255, 255, 0.8)",
                borderpad=1,
            )
    axis = axis_of(records)
    for column, scale in ((axis.column, axis.unit), ("accuracy", 0.01)):
        values = full[column].to_numpy(dtype=float) / scale
        low, high = values.min(), values.max()
        heights.append((values - low) / (high - low) if high > low else np.full(len(full), 0.5))
        names.append("accuracy, %" if column == "accuracy" else axis.heading)
        for height, value in ((0, low), (1, high)):
            figure.add_annotation(
                x=len(names) - 1,
                y=height,
                text=f"{value:.1f}",
                showarrow=False,
                xanchor="left",
                xshift=6,
                font={"size": 11},
            )
    _add_lines(figure, full, best, np.column_stack(heights))
    figure.add_trace(
        go.Scatter(
            x=[len(names) - 1] * len(full),
            y=heights[-1],
            mode="markers",
            marker={"size": 6, "color": style.INK, "opacity": 0.5},
            hovertext=[hover(describe(row, info, marks)) for row in full.to_dict("records")],
            hoverinfo="text",
            showlegend=False,
        )
    )
    for position in range(len(names)):
        figure.add_vline(
            x=position, line={"color": style.FAINT, "width": 1}, layer="below", opacity=0.6
        )
    dress(figure, dragmode=False, margin={"l": 20, "r": 56, "t": 24, "b": 56})
    figure.update_xaxes(
        range=[-0.5, len(names) - 0.5],
        tickvals=list(range(len(names))),
        ticktext=[_two_lines(name) for name in names],
        tickangle=0,
        showgrid=False,
        fixedrange=True,
    )
    figure.update_yaxes(visible=False, range=[-0.05, 1.05], fixedrange=True)
    return figure


def importance_figure(table: DataFrame) -> go.Figure:
    """Draw how much each choice matters, the most important at the top."""
    shown = table.head(MOST_CHOICES).iloc[::-1]
    figure = go.Figure(
        [
            go.Bar(
                x=100 * shown[column],
                y=list(shown.index),
                name=name,
                orientation="h",
                marker={"color": colour},
                hovertemplate="%{y}: %{x:.1f} %<extra></extra>",
            )
            for column, name, colour in (
                ("accuracy", "for accuracy, whatever the cost", style.OTHERS),
                ("front", "for being near the front", style.FRONT),
            )
        ]
    )
    dress(figure, barmode="group", bargap=0.25, legend_traceorder="reversed")
    figure.update_layout(margin={"l": 118, "r": 16, "t": 24, "b": 44})
    figure.update_xaxes(title_text="importance, %", rangemode="tozero")
    figure.update_yaxes(showgrid=False)
    return figure


def stage_figure(effects: Sequence[StageEffect], plain_macs: float) -> go.Figure:
    """Draw the change of accuracy by stage and width, each with its change of MACs beside it."""
    figure = go.Figure()
    for width, colour, symbol, shift in (
        ("base", style.FRONT, "circle", -0.15),
        ("B", style.PAPER, "square", 0.15),
    ):
        chosen = [effect for effect in effects if effect.width == width]
        if not chosen:
            continue
        macs = [signed(100 * effect.macs / plain_macs, 1) for effect in chosen]
        figure.add_trace(
            go.Scatter(
                x=[effect.stage + shift for effect in chosen],
                y=[100 * effect.accuracy for effect in chosen],
                error_y={
                    "type": "data",
                    "array": [100 * effect.error for effect in chosen],
                    "thickness": 1.2,
                    "width": 4,
                },
                name=f"width {width}",
                mode="markers+text",
                text=[f"{change} %" for change in macs],
                textposition="middle right",
                textfont={"size": 10, "color": style.SOFT},
                marker={"color": colour, "symbol": symbol, "size": 10},
                customdata=[[effect.stage, effect.trials] for effect in chosen],
                hovertemplate=f"stage %{{customdata[0]}}, width {width}, in %{{customdata[1]}} "
                "trials<br>%{y:+.2f} points, %{text} MACs<extra></extra>",
            )
        )
    dress(figure)
    stages = sorted({effect.stage for effect in effects})
    figure.update_xaxes(
        range=[stages[0] - 0.5, stages[-1] + 0.7],
        tickvals=stages,
        ticktext=[f"stage {stage}" for stage in stages],
        showgrid=False,
    )
    figure.update_yaxes(title_text="change of accuracy, points")
    figure.add_hline(y=0, line={"color": style.FAINT, "width": 1})
    return figure


def effort_figure(spent: Effort) -> go.Figure:
    """Draw the epochs that were trained, and those that pruning saved, as one bar."""
    parts = [(kind, epochs, EFFORT_COLOURS[kind]) for kind, epochs in spent.epochs.items()]
    if spent.epochs_saved:
        parts.append((SAVED, spent.epochs_saved, "white"))
    figure = go.Figure(
        [
            go.Bar(
                x=[epochs],
                y=[""],
                name=name,
                orientation="h",
                marker={"color": colour, "line": {"color": style.FAINT, "width": 1}},
                text=[f"{epochs:,}"],
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"{name}: %{{x:,}} epochs<extra></extra>",
            )
            for name, epochs, colour in parts
        ]
    )
    dress(figure, barmode="stack", bargap=0.1, margin={"l": 16, "r": 16, "t": 24, "b": 44})
    figure.update_layout(legend={"y": 1.15, "traceorder": "normal"})
    figure.update_xaxes(title_text="epochs")
    figure.update_yaxes(showticklabels=False, showgrid=False)
    return figure


def _add_lines(figure: go.Figure, full: DataFrame, best: DataFrame, heights: np.ndarray) -> None:
    """Add the lines of a parallel plot: the darker the more accurate, the front on top."""
    on_front = full.index.isin(best.index)
    quarter = np.arange(len(full)) * len(SHADES) // max(len(full), 1)
    groups = [
        (f"accuracy: {name} quarter", (quarter == number) & ~on_front, SHADES[number], 1.0)
        for number, name in enumerate(("lowest", "third", "second", "highest"))
    ]
    groups.append(("front", on_front, style.FRONT, 2.2))
    for name, chosen, colour, width in groups:
        if not chosen.any():
            continue
        lines = heights[chosen]
        gap = np.full((len(lines), 1), np.nan)
        places = np.tile([*range(heights.shape[1]), np.nan], len(lines))
        figure.add_trace(
            go.Scatter(
                x=[None if np.isnan(place) else float(place) for place in places],
                y=[
                    None if np.isnan(height) else round(float(height), 4)
                    for height in np.hstack([lines, gap]).ravel()
                ],
                name=name,
                mode="lines",
                line={"color": colour, "width": width},
                hoverinfo="skip",
            )
        )


def _two_lines(name: str) -> str:
    """Break a choice's name before its last word."""
    first, _, last = name.rpartition(" ")
    return f"{first}<br>{last}" if first else last
