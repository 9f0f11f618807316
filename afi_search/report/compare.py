"""The fronts of several studies beside each other: on one page, and as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from afi_search.errors import UserError
from afi_search.formatting import percent
from afi_search.report import style
from afi_search.report.page import render
from afi_search.report.view import CostAxis, StudyView, hover
from afi_search.study.pareto import costs_of, dominated_share, points
from afi_search.study.reference import reference_point
from afi_search.study.study import Study

COLOURS = (*style.NETWORKS[1:], style.FAILED, style.NETWORKS[0])
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")


@dataclass(frozen=True)
class Comparison:
    """Studies whose accuracies and costs are of one kind: their views by folder, and a row each.

    `reference` is the (accuracy, costs) that all hypervolumes have in common.
    """

    views: dict[str, StudyView]
    rows: list[dict[str, Any]]
    reference: tuple[float, ...]

    @property
    def names(self) -> dict[str, str]:
        """What the studies are called: the names of their folders, where these differ."""
        names = {folder: Path(folder).name for folder in self.views}
        return names if len(set(names.values())) == len(names) else {name: name for name in names}

    @property
    def axis(self) -> CostAxis:
        return next(iter(self.views.values())).axis

    @property
    def shown(self) -> list[dict[str, str]]:
        """The rows as a reader sees them."""
        shown = []
        for row in self.rows:
            best, low, high = (percent(row[end] or 0) for end in ("best", "low", "high"))
            shown.append(
                {
                    "study": self.names[row["study"]],
                    "best accuracy, %": f"{best} ({low} to {high})" if row["front"] else "",
                    "hypervolume, %": f"{100 * row['hypervolume']:.2f}",
                    **{name: str(row[name]) for name in ("front", "trials", "epochs")},
                }
            )
        return shown


def compare_studies(studies: Sequence[Study]) -> Comparison:
    """Compare the fronts of two studies or more, whose accuracies and costs are of one kind.

    The hypervolumes, as shares of what a perfect accuracy at no cost would dominate, have one
    reference: guessing, and twice what the dearest of the plain backbones costs. A UserError says
    what cannot be compared.
    """
    views = {str(study.folder): StudyView.of(study) for study in studies}
    if len(views) < 2:
        raise UserError(f"name two studies to compare, or more: {', '.join(views)} is one")
    kinds = {name: _kind(view) for name, view in views.items()}
    for name, kind in kinds.items():
        for what, mine in kind.items():
            first, theirs = next((other, of[what]) for other, of in kinds.items())
            if mine != theirs:
                raise UserError(
                    f"{name}: its {what} is {mine}, and that of {first} {theirs}; only studies "
                    f"with the same can be compared"
                )
    ends = [reference_point(v.references, v.info, costs_of(v.records)) for v in views.values()]
    reference = tuple(np.max(ends, axis=0).tolist())
    rows = [_row(name, view, reference) for name, view in views.items()]
    return Comparison(views, rows, reference)


def _kind(view: StudyView) -> dict[str, str]:
    info = view.info
    return {
        "data set": f"{info.dataset} at {info.image_size} x {info.image_size} pixels",
        "cost": ", ".join(costs_of(view.records)),
        "number of validation images": str(info.validation_images),
    }


def _row(name: str, view: StudyView, reference: Sequence[float]) -> dict[str, Any]:
    best = view.front.nlargest(1, "accuracy")
    accuracies = zip(("best", "low", "high"), (best["accuracy"], *view.intervals), strict=True)
    return {
        "study": name,
        "trials": len(view.records),
        "epochs": view.info.epochs,
        "front": len(view.front),
        **{end: next(iter(values[best.index]), None) for end, values in accuracies},
        "hypervolume": dominated_share(points(view.full), reference),
    }


def comparison_page(comparison: Comparison) -> str:
    """Return a page that needs nothing else, with the fronts and their table, as HTML."""
    shown = comparison.shown
    return render(
        "compare.html",
        {"fronts": comparison_figure(comparison)},
        title=f"Fronts of {len(shown)} studies",
        columns={name: "name" if name == "study" else "number" for name in shown[0]},
        rows=[list(row.values()) for row in shown],
        guessing=f"{100 * comparison.reference[0]:.3g}",
        dearest=comparison.axis.say(comparison.reference[1]),
        epochs={row["epochs"] for row in comparison.rows},
    )


def comparison_figure(comparison: Comparison) -> go.Figure:
    """Draw each study's front over the first cost, with the 95 % intervals of its accuracies."""
    figure, axis = go.Figure(), comparison.axis
    dearest = max(view.front[axis.column].max() for view in comparison.views.values())
    for (folder, view), colour, symbol in zip(
        comparison.views.items(), cycle(COLOURS), cycle(SYMBOLS), strict=False
    ):
        name, best = comparison.names[folder], view.front
        low, high = (end[best.index] for end in view.intervals)
        line = {"color": colour, "width": 1.5}
        figure.add_scatter(
            x=best[axis.column] / axis.unit,
            y=100 * best["accuracy"],
            error_y=style.error_bars(100 * low, 100 * best["accuracy"], 100 * high),
            name=name,
            legendgroup=name,
            mode="lines+markers",
            line=line | {"shape": "hv"},
            marker={"symbol": symbol, "size": 9, "color": colour},
            hovertext=[hover([name]) + f"<br>{told}" for told in view.hovers[best.index]],
            hoverinfo="text",
        )
        last = best[-1:]  # whatever costs more, its accuracy can be had
        figure.add_scatter(
            x=[*last[axis.column] / axis.unit, 1.05 * dearest / axis.unit],
            y=[*100 * last["accuracy"], *100 * last["accuracy"]],
            legendgroup=name,
            mode="lines",
            line=line,
            showlegend=False,
            hoverinfo="skip",
        )
    looks = {"showlegend": True, "margin_b": 60}  # the title of the costs has two lines
    return style.apply_theme(figure, axis.label, "validation accuracy, %", **looks)
