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
from plotly.offline import get_plotlyjs

from afi_search.cost import CONVENTIONS
from afi_search.files import write_whole
from afi_search.formatting import duration, mega, percent, signed
from afi_search.report.front_plot import PRUNED_EARLY, front_figure
from afi_search.report.table import OVER_PLAIN, front_rows, plain_rows
from afi_search.report.view import FRONT, StudyView, axis_named
from afi_search.study.pareto import costs_of
from afi_search.study.reference import reference_point

_TEMPLATES = Environment(
    loader=PackageLoader("afi_search.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=["jinja2.ext.do"],
)
_TEMPLATES.filters |= {"percent": percent, "mega": mega, "signed": signed, "duration": duration}


def write_page(view: StudyView, folder: Path) -> Path:
    """Write the page of a study, report.html, into a folder; return its path."""
    from afi_search.report import findings, study_plots  # Optuna's pictures, which front.html lacks

    info, records, numbers = view.info, view.records, view.records["number"].tolist()
    pruned = records.loc[records["state"] == "pruned", "epochs"]
    spent, study = findings.effort(view), findings.as_optuna(view)
    figures: dict[str, go.Figure] = {}
    facts: dict[str, Any] = {
        "whole": True,
        "pruned_after": pruned.value_counts().sort_index().to_dict(),
        "full": len(view.full),
        "effects": [],
        "spent": spent,
        "failed": records[records["state"] == "failed"].to_dict("records"),
        "ended": {
            number: escape(": ".join(filter(None, (state, reason))))
            for number, state, reason in records[["number", "state", "reason"]].itertuples(False)
        },
        "learned": dict(zip(numbers, records["curve"].map(learned), strict=True)),
        "findings": findings,
        "MOST_CHOICES": study_plots.MOST_CHOICES,
        "hovers": dict(zip(numbers, view.hovers, strict=True)),
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
            facts |= {"effects": effects.to_dict("records"), "plain_macs": plain.macs}
        weights = findings.importance(study)
        facts["choices"] = len(weights)
        if len(weights):
            ends = findings.importance_intervals(study, weights)
            figures["importance"] = study_plots.importance_figure(weights, *ends)
        figures["choices"] = study_plots.parallel_figure(view)
        facts["axes"] = len(figures["choices"].layout.xaxis.tickvals)
    if spent["epochs"].any():
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
    return _render(view, {"front": figure}, {"whole": False})


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
        front=[
            [row.get(name, "") for name in columns]
            for row in (*rows, *(plain_rows(view) if rows else ()))
        ],
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
