"""The pages of a study: report.html, which needs nothing else, and front.html, its first part.

No request leaves a page, so it opens anywhere and keeps for years.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pandas import DataFrame
from plotly.io import to_html

from afi_search.files import write_whole
from afi_search.formatting import duration, mega, percent, signed
from afi_search.report import front_plot, study_plots
from afi_search.report.axis import axis_named
from afi_search.report.findings import (
    FEWEST_TRIALS,
    Effort,
    effort,
    importance,
    stage_effects,
)
from afi_search.report.front_plot import front_figure
from afi_search.report.table import front_rows
from afi_search.study.info import MACS_CONVENTION, PAPER_FLOPS_CONVENTION, StudyInfo
from afi_search.study.pareto import comparable, costs_of
from afi_search.study.reference import References, measure_references, reference_point

PAGE_FILE = "report.html"
CONFIRMED_FILE = Path("confirm") / "confirmed.csv"
MOST_FAILURES = 20
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

_TEMPLATES = Environment(
    loader=PackageLoader("afi_search.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

# A page is scrolled with the finger that would otherwise zoom into a plot.
_ON_A_PHONE = """
if (window.matchMedia('(max-width: 600px)').matches) {
  Plotly.relayout('{plot_id}', {dragmode: false, 'font.size': 11, 'xaxis.title.font.size': 11});
}
"""

_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def write_page(records: DataFrame, info: StudyInfo, folder: Path) -> Path:
    """Write the page of a study into a folder; return its path.

    Raises:
        ValueError: a column of `records` is missing.
        UnknownBackbone: the study's backbone is not registered.
    """
    path = folder / CONFIRMED_FILE
    confirmed = pd.read_csv(path) if path.is_file() else None
    page = study_page(records, info, measure_references(info, records), confirmed)
    return write_whole(folder / PAGE_FILE, page)


def study_page(
    records: DataFrame, info: StudyInfo, references: References, confirmed: DataFrame | None = None
) -> str:
    """Return the page of a study as HTML.

    Args:
        records: the ledger's trials.
        info: the study's facts.
        references: the plain backbones and the paper's points.
        confirmed: what the study's confirmation has found, where there is one.

    Raises:
        ValueError: a column of `records` is missing.
    """
    full = comparable(records)
    failed = records[records["state"] == "failed"]
    pruned = records.loc[records["state"] == "pruned", "epochs"]
    figures: dict[str, go.Figure] = {}
    facts: dict[str, Any] = {
        "whole": True,
        "confirmed": [] if confirmed is None else list(_confirmed(confirmed)),
        "pruned_after": pruned.value_counts().sort_index().to_dict(),
        "full": len(full),
        "effects": [],
        "effort": (spent := effort(records, info.epochs)),
        "spent": list(_spent(spent)) if spent.epochs else [],
        "failed": [
            (f"#{row['number']}", row["architecture"], row["epochs"], row["reason"])
            for row in failed.to_dict("records")
        ],
        "environment": list(_environment(info).items()),
        "FEWEST_TRIALS": FEWEST_TRIALS,
        "MOST_CHOICES": study_plots.MOST_CHOICES,
        "MOST_FAILURES": MOST_FAILURES,
    }
    costs = [axis_named(name) for name in costs_of(records)]
    reference = reference_point(references, info, [axis.column for axis in costs])
    if len(full) and np.isfinite(reference).all() and all(reference):
        facts["guessing"] = f"{100 * reference[0]:.3g}"
        facts["reference"] = [axis.say(end) for axis, end in zip(costs, reference[1:], strict=True)]
        for over in ("trials", "hours"):
            figure = study_plots.hypervolume_figure(records, reference, over)
            figures[f"progress-{over}"] = figure
    if records["curve"].map(bool).any():
        figures["curves"] = study_plots.curves_figure(records, info, references)
    if len(full) > 1 and len(info.backbones) == 1:
        (plain,) = references.plain.values()
        if effects := stage_effects(records):
            figures["stages"] = study_plots.stage_figure(effects, plain.macs)
            facts["effects"] = [
                (
                    effect.stage,
                    effect.width,
                    effect.trials,
                    f"{signed(100 * effect.accuracy, 2)} {PLUS_MINUS} {100 * effect.error:.2f}",
                    signed(100 * effect.macs / plain.macs, 1),
                )
                for effect in effects
            ]
        weights = importance(records)
        facts["choices"] = len(weights)
        if len(weights):
            figures["importance"] = study_plots.importance_figure(weights)
        figures["choices"] = study_plots.parallel_figure(records, info, references)
        facts["axes"] = len(figures["choices"].layout.xaxis.tickvals)
    if spent.epochs:
        figures["timeline"] = study_plots.timeline_figure(records)
    return _render(records, info, references, figures, facts)


def front_page(records: DataFrame, info: StudyInfo, references: References) -> str:
    """Return the page of a study's front alone as HTML.

    Raises:
        ValueError: a column of `records` is missing.
    """
    return _render(records, info, references, {}, {"whole": False, "confirmed": []})


def _render(
    records: DataFrame,
    info: StudyInfo,
    references: References,
    figures: Mapping[str, go.Figure],
    facts: Mapping[str, Any],
) -> str:
    front = front_figure(records, info, references)
    rows = front_rows(records, references)
    columns = {
        name: "name" if name == "architecture" else "number"
        for name in (rows[0] if rows else ())
        if name != "epochs"
    }
    return _TEMPLATES.get_template("report.html").render(
        title=front_plot.heading(info),
        facts=front_plot.facts(records, info),
        info=info,
        references=references,
        drawn=[trace.name for trace in front.data],
        front=[[row.get(name, "") for name in columns] for row in rows],
        front_columns=columns,
        plots={"front": _plot(front, "front", with_script=True)}
        | {name: _plot(figure, name) for name, figure in figures.items()},
        FRONT=front_plot.FRONT,
        PRUNED=front_plot.PRUNED,
        MACS_CONVENTION=MACS_CONVENTION,
        PAPER_FLOPS_CONVENTION=PAPER_FLOPS_CONVENTION,
        **facts,
    )


def _plot(figure: go.Figure, name: str, *, with_script: bool = False) -> Markup:
    """Return a figure as an element; the first one of a page brings plotly's script along."""
    element = to_html(
        figure,
        full_html=False,
        include_plotlyjs=with_script,
        div_id=name,
        default_width="100%",
        default_height="100%",
        config=_CONFIG,
        post_script=_ON_A_PHONE,
    )
    return Markup(element)


def _confirmed(table: DataFrame) -> Iterator[tuple[Any, ...]]:
    for row in table.to_dict("records"):
        test, validation = (
            f"{percent(row[name])} {PLUS_MINUS} {percent(row[f'{name}_high'] - row[name])}"
            for name in ("test", "validation")
        )
        yield (
            row["architecture"],
            row["origin"],
            test,
            validation,
            mega(row["macs"]),
            row["seeds"],
            row["verdict"],
        )


def _spent(spent: Effort) -> Iterator[tuple[str, str, str]]:
    for name, epochs in spent.epochs.items():
        yield name, f"{epochs:,}", duration(spent.seconds[name])
    epochs, seconds = sum(spent.epochs.values()), sum(spent.seconds.values())
    yield "all that was trained", f"{epochs:,}", duration(seconds)
    if spent.epochs_saved:
        yield "saved by pruning", f"{spent.epochs_saved:,}", duration(spent.seconds_saved)


def _environment(info: StudyInfo) -> dict[str, str]:
    pixels = f"{info.image_size} x {info.image_size} pixels"
    facts = {
        "backbone": ", ".join(info.backbones),
        "data set": f"{info.dataset}, {info.num_classes} classes, {pixels}",
        "device": info.device,
        **info.environment,
    }
    return {name: value for name, value in facts.items() if value}
