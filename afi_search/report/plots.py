"""The front as an interactive plotly figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from afi_search.report import style
from afi_search.report.canvas import dress
from afi_search.report.view import FrontView, Point

PANEL_HEIGHTS = {"paper": 0.2, "main": 0.65, "pruned": 0.15}
HOVER_WIDTH = 44


def front_figure(view: FrontView) -> go.Figure:
    """Draw a front; panels of the paper's points and of pruned trials stand above and below it."""
    panels = front_panels(view)
    rows = {name: row for row, name in enumerate(panels, start=1)}
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.035,
        row_heights=[PANEL_HEIGHTS[name] for name in panels],
    )
    main = rows["main"]
    for trace in _trial_traces(view):
        figure.add_trace(trace, row=main, col=1)
    if view.paper:
        figure.add_trace(_paper_trace(view), row=rows.get("paper", main), col=1)
    if view.pruned:
        figure.add_trace(_pruned_trace(view), row=rows["pruned"], col=1)
    _lay_out(figure, view, rows)
    return figure


def front_panels(view: FrontView) -> list[str]:
    """Return the names of the panels that a front needs, from top to bottom."""
    return [
        *(["paper"] if view.paper_apart else []),
        "main",
        *(["pruned"] if view.pruned else []),
    ]


def _trial_traces(view: FrontView) -> list[go.Scatter]:
    traces = []
    if view.others:
        traces.append(
            go.Scatter(
                **_coordinates(view, view.others),
                name=style.OTHERS_NAME,
                legendrank=2,
                mode="markers",
                marker={"color": style.OTHERS, "size": 7, "line": {"color": "white", "width": 0.5}},
            )
        )
    if view.front:
        corners = view.stairs
        traces.append(
            go.Scatter(
                x=[cost / view.axis.unit for cost, _ in corners],
                y=[accuracy for _, accuracy in corners],
                mode="lines",
                line={"color": style.FRONT, "width": 1.5},
                legendgroup="front",
                showlegend=False,
                hoverinfo="skip",
            )
        )
        traces.append(
            go.Scatter(
                **_coordinates(view, view.front),
                name=style.FRONT_NAME,
                legendrank=1,
                legendgroup="front",
                mode="markers+text",
                text=[point.label if point.labelled else "" for point in view.front],
                textposition="top left",
                textfont={"color": style.FRONT, "size": 11},
                marker={"color": style.FRONT, "size": 10, "line": {"color": "white", "width": 1}},
                error_y=_error_bars(view),
                cliponaxis=False,
            )
        )
    if view.plain_trials:
        traces.append(
            go.Scatter(
                **_coordinates(view, view.plain_trials),
                name=style.PLAIN_NAME,
                legendrank=3,
                mode="markers",
                marker={
                    "symbol": "star",
                    "color": style.PLAIN,
                    "size": 14,
                    "line": {"color": "white", "width": 1},
                },
            )
        )
    return traces


def _paper_trace(view: FrontView) -> go.Scatter:
    return go.Scatter(
        **_coordinates(view, view.paper),
        name=view.paper_name,
        legendrank=4,
        mode="markers",
        marker={
            "symbol": "diamond-open",
            "color": style.PAPER,
            "size": 10,
            "line": {"color": style.PAPER, "width": 2},
        },
    )


def _pruned_trace(view: FrontView) -> go.Scatter:
    return go.Scatter(
        **_coordinates(view, view.pruned),
        name=style.PRUNED_NAME,
        legendrank=5,
        mode="markers",
        opacity=0.5,
        marker={
            "symbol": "line-ns-open",
            "color": style.PRUNED,
            "size": 8,
            "line": {"color": style.PRUNED, "width": 1.5},
        },
    )


def _lay_out(figure: go.Figure, view: FrontView, rows: dict[str, int]) -> None:
    dress(figure, margin={"l": 62, "r": 16, "t": 24, "b": 58})
    figure.update_xaxes(range=[cost / view.axis.unit for cost in view.cost_range])
    figure.update_xaxes(
        title_text=f"{view.axis.title}<br><span style='font-size:0.85em'>"
        f"{view.axis.explanation}</span>",
        row=len(rows),
        col=1,
    )
    for name, row in rows.items():
        title = style.Y_AXES[name].replace("\n", "<br>")
        figure.update_yaxes(range=view.y_range(name), title_text=title, row=row, col=1)
    if "paper" in rows:
        figure.update_yaxes(nticks=4, row=rows["paper"], col=1)
    if "pruned" in rows:
        figure.update_yaxes(tickvals=view.pruned_ticks, row=rows["pruned"], col=1)
    for line in view.plain:
        for row in rows.values():
            figure.add_vline(
                x=line.cost / view.axis.unit,
                line={"color": style.PLAIN, "width": 1, "dash": "dot"},
                layer="below",
                row=row,
                col=1,
            )
        figure.add_annotation(
            x=line.cost / view.axis.unit,
            y=1,
            xref="x",
            yref="paper",
            yanchor="bottom",
            text=escape(line.label),
            showarrow=False,
            font={"size": 11},
        )
    if view.message:
        figure.add_trace(  # an axis without a trace is not drawn at all
            go.Scatter(x=[view.cost_range[0] / view.axis.unit], y=[None], showlegend=False),
            row=rows["main"],
            col=1,
        )
        axis = "" if rows["main"] == 1 else str(rows["main"])
        figure.add_annotation(
            x=0.5,
            y=0.5,
            xref="paper",
            yref=f"y{axis} domain",
            text=escape(view.message).replace("\n", "<br>"),
            showarrow=False,
            bgcolor="white",
            borderpad=6,
            font={"size": 14},
        )


def _coordinates(view: FrontView, points: Sequence[Point]) -> dict[str, object]:
    return {
        "x": [point.cost / view.axis.unit for point in points],
        "y": [point.y for point in points],
        "hovertext": [hover(point.lines) for point in points],
        "hoverinfo": "text",
    }


def hover(lines: Iterable[str]) -> str:
    """Return lines as plotly shows them at the pointer, the first one in bold."""
    first, *rest = (escape(line) for line in lines)
    return "<br>".join([f"<b>{_folded(first)}</b>", *rest])


def _folded(text: str) -> str:
    """Break a long architecture after its commas."""
    folded = ""
    for part in text.split(", "):
        line = folded.rpartition("<br>")[2]
        if not folded:
            folded = part
        elif len(line) + len(part) > HOVER_WIDTH:
            folded += f",<br>{part}"
        else:
            folded += f", {part}"
    return folded


def _error_bars(view: FrontView) -> dict[str, object] | None:
    if not view.intervals:
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [point.high - point.y for point in view.front],
        "arrayminus": [point.y - point.low for point in view.front],
        "color": "rgba(0, 114, 178, 0.5)",
        "thickness": 1,
        "width": 3,
    }
