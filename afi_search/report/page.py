"""The pages of a study: report.html, which needs nothing else, and front.html, its first part.

No request leaves a page, so it opens anywhere and keeps for years.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pandas import DataFrame
from plotly.offline import get_plotlyjs

from afi_search.cost import CONVENTIONS
from afi_search.files import write_whole
from afi_search.formatting import duration, mega, percent, signed
from afi_search.report.front_plot import PRUNED_EARLY, front_figure
from afi_search.report.table import OVER_PLAIN, front_rows
from afi_search.report.view import FRONT, StudyView, axis_named
from afi_search.study.pareto import costs_of
from afi_search.study.reference import reference_point

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

_TEMPLATES = Environment(
    loader=PackageLoader("afi_search.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(view: StudyView, folder: Path) -> Path:
    """Write the page of a study, report.html, into a folder; return its path."""
    from afi_search.report import findings, study_plots  # Optuna's pictures, which front.html lacks

    info, records = view.info, view.records
    failed = records[records["state"] == "failed"]
    pruned = records.loc[records["state"] == "pruned", "epochs"]
    spent, study = findings.effort(view), findings.as_optuna(view)
    figures: dict[str, go.Figure] = {}
    facts: dict[str, Any] = {
        "whole": True,
        "confirmed": [] if view.confirmed is None else _confirmed(view.confirmed),
        "scores": [] if view.audit is None else _scores(view.audit),
        "pruned_after": pruned.value_counts().sort_index().to_dict(),
        "full": len(view.full),
        "effects": [],
        "spent": _spent(spent),
        "saved": (saved := int(spent["epochs"]["saved"])),
        "share_saved": saved / max(1, spent["epochs"].sum()),
        "failed": failed.assign(number="#" + failed["number"].astype(str))[
            ["number", "architecture", "epochs", "reason"]
        ]
        .to_numpy()
        .tolist(),
        "ended": {
            number: escape(": ".join(filter(None, (state, reason))))
            for number, state, reason in records[["number", "state", "reason"]].itertuples(False)
        },
        "learned": dict(
            zip(records["number"].tolist(), records["curve"].map(learned), strict=True)
        ),
        "environment": {
            "backbone": ", ".join(info.backbones),
            "data set": f"{info.dataset}, {info.num_classes} classes, {info.image_size} x "
            f"{info.image_size} pixels",
            "device": info.device,
            **info.environment,
        },
        "findings": findings,
        "MOST_CHOICES": study_plots.MOST_CHOICES,
        "hovers": dict(zip(records["number"].tolist(), view.hovers, strict=True)),
    }
    if view.confirmed is not None:
        from afi_search.promote.confirm_results import CONVENTIONS  # takes scipy.stats along

        facts["VERDICT"] = CONVENTIONS["verdict"]
    if view.audit is not None:
        from afi_search.search.rank import verdict  # takes scipy.stats along

        facts["verdict"] = verdict(view.audit)
    costs = [axis_named(name) for name in costs_of(records)]
    reference = reference_point(view.references, info, [axis.column for axis in costs])
    if len(view.full) and np.isfinite(reference).all() and all(reference):
        facts["guessing"] = f"{100 * reference[0]:.3g}"
        facts["reference"] = [axis.say(end) for axis, end in zip(costs, reference[1:], strict=True)]
        for over, figure in study_plots.hypervolume_figures(view, reference).items():
            figures[f"progress-{over}"] = figure
    if records["curve"].map(bool).any():
        figures["curves"] = study_plots.curves_figure(view)
    if len(view.full) > 1 and len(info.backbones) == 1:
        (plain,) = view.references.plain.values()
        if len(effects := findings.stage_effects(view)):
            figures["stages"] = study_plots.stage_figure(effects, plain.macs)
            facts["effects"] = [
                (
                    *(row[name] for name in ("stage", "width", "trials")),
                    f"{signed(100 * row['accuracy'], 2)} {PLUS_MINUS} {100 * row['error']:.2f}",
                    signed(100 * row["macs"] / plain.macs, 1),
                )
                for row in effects.to_dict("records")
            ]
        weights = findings.importance(study)
        facts["choices"] = len(weights)
        if len(weights):
            ends = findings.importance_intervals(study, weights)
            figures["importance"] = study_plots.importance_figure(weights, *ends)
        figures["choices"] = study_plots.parallel_figure(view)
        facts["axes"] = len(figures["choices"].layout.xaxis.tickvals)
    if facts["spent"]:
        figures["timeline"] = study_plots.timeline_figure(view)
    page = _render(view, {"front": front_figure(view)} | figures, facts)
    return write_whole(folder / "report.html", page)


def learned(curve: Sequence[float]) -> str:
    """Say how accurate a trial was after 1, 2, 4, 8, ... epochs and after its last.

    >>> learned([0.031, 0.064, 0.083, 0.091, 0.105])
    '3.1 % after epoch 1, 6.4 % after 2, 9.1 % after 4, 10.5 % after 5'
    """
    epochs = {2**doubled for doubled in range(len(curve).bit_length())} | {len(curve)}
    told = ", ".join(f"{percent(curve[n - 1])} % after {n}" for n in sorted(epochs) if n)
    return told.replace("after 1", "after epoch 1", 1)


def front_page(view: StudyView, figure: go.Figure) -> str:
    """Return the page of a study's front alone as HTML, with the figure of it."""
    return _render(view, {"front": figure}, {"whole": False, "confirmed": []})


def _render(view: StudyView, figures: Mapping[str, go.Figure], facts: Mapping[str, Any]) -> str:
    rows = front_rows(view)
    columns = {
        name: {"architecture": "name", OVER_PLAIN: "gain"}.get(name, "number")
        for name in (rows[0] if rows else ())
        if name != "epochs"
    }
    return render(
        "report.html",
        figures,
        title=view.heading,
        view=view,
        info=view.info,
        drawn=[trace.name for trace in figures["front"].data],
        front=[[row.get(name, "") for name in columns] for row in rows],
        front_columns=columns,
        FRONT=FRONT,
        PRUNED_EARLY=PRUNED_EARLY,
        CONVENTIONS=CONVENTIONS,
        **facts,
    )


def render(template: str, figures: Mapping[str, go.Figure], *, title: str, **facts: Any) -> str:
    """Return a page with figures by their names, made of a template and what that asks for."""
    return _TEMPLATES.get_template(template).render(
        title=title,
        plotly=Markup(get_plotlyjs()),
        plots={name: Markup(figure.to_json()) for name, figure in figures.items()},
        **({"hovers": {}} | facts),
    )


def _confirmed(table: DataFrame) -> list[tuple[Any, ...]]:
    def interval(row: Mapping[Any, Any], name: str) -> str:
        return f"{percent(row[name])} {PLUS_MINUS} {percent(row[f'{name}_high'] - row[name])}"

    return [
        (
            row["architecture"],
            row["origin"],
            interval(row, "test"),
            mega(row["macs"]),
            interval(row, "validation"),
            row["seeds"],
            row["verdict"],
        )
        for row in table.to_dict("records")
    ]


def _scores(table: DataFrame) -> list[tuple[Any, ...]]:
    def interval(row: Mapping[Any, Any], *names: str) -> str:
        tau, low, high = (row[name] for name in names)
        return f"{tau:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(low) else "\N{EN DASH}"

    return [
        (
            score,
            interval(row, "tau", "low", "high"),
            interval(row, "partial", "partial_low", "partial_high"),
            f"{row['cost']:.1f}",
            row["count"],
        )
        for score, row in table.to_dict("index").items()
    ]


def _spent(spent: DataFrame) -> list[tuple[Any, str, str]]:
    trained = spent.drop("saved")
    whole = {"all that was trained": trained.sum(), "saved by pruning": spent.loc["saved"]}
    rows: dict[Any, Any] = trained.to_dict("index") | whole
    return [
        (name, f"{row['epochs']:,.0f}", duration(row["seconds"]))
        for name, row in rows.items()
        if row["epochs"]
    ]
