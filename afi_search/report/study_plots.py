"""The figures of a study's page besides the front; Optuna's own where there are such."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
from optuna.visualization import (
    plot_hypervolume_history,
    plot_intermediate_values,
    plot_timeline,
)
from pandas import DataFrame

from afi_search.formatting import signed
from afi_search.report import style
from afi_search.report.axis import axis_of
from afi_search.report.findings import StageEffect, as_optuna, choice_table, levels_of, quiet
from afi_search.report.front_plot import describe, hover, plural
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import comparable, costs_of, front
from afi_search.study.reference import References

ENDS = {
    "front": (style.FRONT, 1.0, "circle"),
    "other trials of full fidelity": (style.OTHERS, 0.7, "circle"),
    "pruned": (style.SOFT, 0.6, "x-thin-open"),
    "failed": (style.FAILED, 0.9, "x"),
    "not finished": (style.INK, 0.6, "circle-open"),
}
"""What became of a trial -> the colour, the opacity and the mark of its curve."""
STATES = {
    "COMPLETE": ("full fidelity", style.FRONT),
    "PRUNED": ("pruned", style.OTHERS),
    "FAIL": ("failed", style.FAILED),
    "RUNNING": ("not finished", style.INK),
    "WAITING": ("waiting", style.GRID),
}
SHADES = {
    "accuracy: lowest quarter": "#d5dbe1",
    "accuracy: third quarter": "#a9b5c1",
    "accuracy: second quarter": "#7b8794",
    "accuracy: highest quarter": "#3e4c59",
}
NOT_APPLICABLE = "\N{EN DASH}"
ENDED = ("complete", "pruned", "failed")
MOST_CHOICES = 16
MOST_TICKS = 12


@quiet()
def hypervolume_figure(records: DataFrame, reference: Sequence[float], over: str) -> go.Figure:
    """Draw the front's hypervolume after each trial of full fidelity, in the order of their ends.

    Args:
        records: the ledger's trials, with one of full fidelity at least.
        reference: (accuracy, costs), as for `hypervolume`; 100 % is what a perfect accuracy at no
            cost would give.
        over: `trials` that ended so far, or `hours` of training, summed over these.
    """
    ended = records[records["state"].isin(ENDED)].sort_values(["finished", "number"], kind="stable")
    figure = plot_hypervolume_history(as_optuna(ended, ["accuracy", *costs_of(records)]), reference)
    (history,) = figure.data
    whole = (1 - reference[0]) * np.prod(reference[1:])
    shares = 100 * np.array(history.y) / whole
    hours = ended["seconds"].to_numpy(dtype=float).cumsum() / 3600
    reached = np.array(history.x)
    x = reached + 1 if over == "trials" else hours[reached]
    end = len(ended) if over == "trials" else hours[-1]
    history.update(
        x=[0, *x, end],
        y=[0, *shares, shares[-1]],
        mode="lines",
        line={"shape": "hv", "color": style.FRONT, "width": 2},
        fill="tozeroy",
        fillcolor="rgba(0, 114, 178, 0.08)",
        hovertemplate=f"%{{y:.2f}} % after %{{x:.4~g}} {over}<extra></extra>",
    )
    style.apply_theme(figure, showlegend=False)
    title = {"trials": "trials ended", "hours": "hours of training, summed over trials"}[over]
    whole_ticks = over == "trials" and len(ended) <= MOST_TICKS
    figure.update_xaxes(title_text=title, rangemode="tozero", dtick=1 if whole_ticks else None)
    figure.update_yaxes(title_text="hypervolume, % of the box")
    above = shares[shares > 0]
    if len(above):
        room = max(0.15 * (above[-1] - above[0]), 0.02 * above[-1])
        figure.update_yaxes(range=[above[0] - room, above[-1] + room])
    return figure


@quiet()
def curves_figure(records: DataFrame, info: StudyInfo, references: References) -> go.Figure:
    """Draw the accuracy of every trial after each epoch, with a mark where it ended."""
    drawn = records[records["curve"].map(bool)]
    # later traces lie above earlier ones
    drawn = drawn.iloc[np.argsort(drawn.index.isin(front(records).index), kind="stable")]
    # Optuna leaves out the trials that failed
    figure = plot_intermediate_values(as_optuna(drawn.assign(state="pruned"), ["accuracy"]))
    kinds = np.select(
        [
            drawn.index.isin(front(records).index),
            drawn["full"],
            drawn["state"] == "pruned",
            drawn["state"] == "failed",
        ],
        list(ENDS)[:4],
        "not finished",
    )
    for curve, kind, row in zip(figure.data, kinds, drawn.to_dict("records"), strict=True):
        colour, opacity, symbol = ENDS[kind]
        curve.update(
            opacity=opacity,
            line={"color": colour, "width": 2 if kind == "front" else 1},
            marker={
                "symbol": symbol,
                "size": [0] * (len(curve.x) - 1) + [7],  # a mark at the last epoch alone
                "maxdisplayed": 0,
                "line": {"width": 0 if "x" not in symbol else 1},
            },
            hovertext=hover(describe(row, info, references)),
            hoverinfo="text",
        )
    _group(figure, list(kinds), list(ENDS))
    style.apply_theme(figure, showlegend=True)
    figure.update_xaxes(
        title_text="epoch",
        range=[1 - 0.04 * info.epochs, 1.04 * info.epochs],
        dtick=1 if info.epochs <= MOST_TICKS else None,
    )
    figure.update_yaxes(title_text="validation accuracy, %")
    return figure


def parallel_figure(records: DataFrame, info: StudyInfo, references: References) -> go.Figure:
    """Draw each trial of full fidelity as a line through its choices, its cost and its accuracy.

    Unlike Optuna's picture, levels have their order, and lines of one level lie side by side.
    """
    axis, full = axis_of(records), comparable(records).sort_values("accuracy", kind="stable")
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
    kinds = np.where(
        full.index.isin(front(records).index),
        "front",
        np.array(list(SHADES))[np.arange(len(full)) * len(SHADES) // len(full)],
    )
    lines = list(zip(np.column_stack(list(heights.values())), kinds, full.index, strict=True))
    lines.sort(key=lambda line: line[1] == "front")  # later traces lie above earlier ones
    figure = go.Figure(
        [
            go.Scatter(
                x=list(range(len(heights))),
                y=list(line),
                mode="lines",
                line={"color": SHADES.get(kind, style.FRONT), "width": 2 if kind == "front" else 1},
                hovertext=hover(describe(full.loc[trial], info, references)),
                hoverinfo="text",
            )
            for line, kind, trial in lines
        ]
    )
    _group(figure, [kind for _, kind, _ in lines], [*SHADES, "front"])
    for x, y, text in labels:
        on_choice = x < len(table.columns)
        figure.add_annotation(
            x=x,
            y=y,
            text=text or NOT_APPLICABLE,
            showarrow=False,
            font={"size": 11},
            bgcolor="rgba(255, 255, 255, 0.8)" if on_choice else None,
            xanchor="center" if on_choice else "left",
            xshift=0 if on_choice else 6,
        )
    for position in range(len(heights)):
        figure.add_vline(x=position, line={"color": style.FAINT, "width": 1}, layer="below")
    style.apply_theme(figure, dragmode=False, margin={"l": 20, "r": 56, "t": 24, "b": 56})
    figure.update_xaxes(
        range=[-0.5, len(heights) - 0.5],
        tickvals=list(range(len(heights))),
        ticktext=["<br>".join(name.rsplit(" ", 1)) for name in heights],
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
    style.apply_theme(figure, barmode="group", bargap=0.25, legend_traceorder="reversed")
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
        figure.add_scatter(
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
            text=[f"{signed(100 * effect.macs / plain_macs, 1)} %" for effect in chosen],
            textposition="middle right",
            textfont={"size": 10, "color": style.SOFT},
            marker={"color": colour, "symbol": symbol, "size": 10},
            customdata=[[effect.stage, effect.trials] for effect in chosen],
            hovertemplate=f"stage %{{customdata[0]}}, width {width}, in %{{customdata[1]}} "
            "trials<br>%{y:+.2f} points, %{text} MACs<extra></extra>",
        )
    style.apply_theme(figure)
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


@quiet()
def timeline_figure(records: DataFrame) -> go.Figure:
    """Draw when each trial ran, and how it ended."""
    started = records[records["started"].notna()].sort_values("number")
    figure = plot_timeline(as_optuna(started, ["accuracy"]))
    for bars in figure.data:
        name, colour = STATES[bars.name]
        rows = started.iloc[list(bars.y)]
        told = zip(rows["number"], rows["architecture"], rows["epochs"], strict=True)
        bars.update(
            name=name,
            y=list(rows["number"]),
            marker={"color": colour},
            text=[
                f"#{number} {escape(architecture)}<br>{plural(epochs, 'epoch')}"
                for number, architecture, epochs in told
            ],
        )
    style.apply_theme(figure, bargap=0.1, margin={"l": 62, "r": 16, "t": 24, "b": 56})
    figure.update_xaxes(title_text="time", type="date")
    figure.update_yaxes(title_text="trial")
    return figure


def _group(figure: go.Figure, kinds: Sequence[str], order: Sequence[str]) -> None:
    """Make one entry of the legend, which shows and hides them, of all traces of a kind."""
    for kind, trace in zip(kinds, figure.data, strict=True):
        trace.update(name=str(kind), legendgroup=str(kind), showlegend=False)
        trace.legendrank = order.index(kind)
    for kind in set(kinds):
        next(trace for trace in figure.data if trace.name == kind).showlegend = True
