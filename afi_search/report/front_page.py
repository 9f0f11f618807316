"""front.html: the front as a picture to explore and as a table."""

from __future__ import annotations

from pandas import DataFrame

from afi_search.report import html
from afi_search.report.front_rows import front_rows
from afi_search.report.plots import front_figure
from afi_search.report.view import FrontView, front_view
from afi_search.study.info import (
    MACS_CONVENTION,
    PAPER_FLOPS_CONVENTION,
    StudyInfo,
)
from afi_search.study.pareto import front
from afi_search.study.reference import Landmarks


def front_html(records: DataFrame, info: StudyInfo, marks: Landmarks) -> str:
    """Return the page of a study's front.

    Raises:
        ValueError: a column of `records` is missing.
    """
    view = front_view(records, info, marks)
    sections = [
        html.plot(front_figure(view), "front", with_script=True),
        reading_help(view),
        front_section(front(records), marks),
        conventions(),
    ]
    return html.page(view.title, view.facts, view.note, sections)


def reading_help(view: FrontView) -> str:
    """Say how the picture is to be read, as far as it applies."""
    parts = ["A trial is on the front when no other is both as cheap and more accurate."]
    if view.intervals and view.front:
        parts.append(
            "Bars are 95 % intervals of the sampling error of the validation images; another seed "
            "adds to it."
        )
    if view.paper:
        parts.append(
            "The paper's points are test accuracies after its own full training, and no measure of "
            "these trials."
        )
    if view.pruned:
        parts.append("Pruned trials are drawn by the epoch after which they were stopped.")
    return html.small(" ".join(parts))


def front_section(best: DataFrame, marks: Landmarks) -> str:
    """Return the front as a table, or nothing where there is none."""
    if best.empty:
        return ""
    rows = front_rows(best, marks)
    columns = {
        "trial": "number",
        "architecture": "name",
        "accuracy, %": "number",
        "MACs, M": "number",
        "vs plain": "number",
        **dict.fromkeys(rows[0].measured, "number"),
        "parameters": "number",
        "paper FLOPs, G": "number",
        "seed": "number",
    }
    cells = [
        (
            row.trial,
            row.architecture,
            row.accuracy,
            row.macs,
            row.against_plain,
            *row.measured.values(),
            row.params,
            row.paper_gflops,
            row.seed,
        )
        for row in rows
    ]
    return f"<h2>The front, cheapest first</h2>{html.table(columns, cells)}"


def conventions() -> str:
    """Say what is counted."""
    return f'<p class="small">MACs: {MACS_CONVENTION}. Paper FLOPs: {PAPER_FLOPS_CONVENTION}.</p>'
