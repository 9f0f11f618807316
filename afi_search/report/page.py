"""report.html: all that a study shows, on one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame

from afi_search.files import write_whole
from afi_search.formatting import duration, signed
from afi_search.report import html
from afi_search.report.axis import AXES
from afi_search.report.confirmed_section import confirmed_section, read_confirmed_file
from afi_search.report.effort import SAVED, Effort, effort
from afi_search.report.front_page import conventions, front_section, reading_help
from afi_search.report.importance import FEWEST_TRIALS, importance
from afi_search.report.plots import front_figure
from afi_search.report.progress import hypervolume_over_time
from afi_search.report.stages import StageEffect, stage_effects
from afi_search.report.study_plots import (
    MOST_CHOICES,
    curves_figure,
    effort_figure,
    importance_figure,
    parallel_figure,
    progress_figure,
    stage_figure,
)
from afi_search.report.view import front_view
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import comparable, costs_of, front
from afi_search.study.reference import Landmarks, landmarks, reference_point

PAGE_FILE = "report.html"
MOST_FAILURES = 20
REM_AN_AXIS = 4


def write_page(records: DataFrame, info: StudyInfo, folder: Path) -> Path:
    """Write the page of a study into a folder; return its path.

    Raises:
        ValueError: a column of `records` is missing.
        UnknownBackbone: the study's backbone is not registered.
    """
    page = study_page(records, info, landmarks(info, records), read_confirmed_file(folder))
    return write_whole(folder / PAGE_FILE, page)


def study_page(
    records: DataFrame, info: StudyInfo, marks: Landmarks, confirmed: DataFrame | None = None
) -> str:
    """Return the page of a study as HTML.

    Args:
        records: the ledger's trials.
        info: the study's facts.
        marks: the plain backbones and the paper's points.
        confirmed: what the study's confirmation has found, where there is one.

    Raises:
        ValueError: a column of `records` is missing.
    """
    view = front_view(records, info, marks)
    best = front(records)
    sections = [
        html.plot(front_figure(view), "front", with_script=True),
        reading_help(view),
        front_section(best, marks),
        confirmed_section(confirmed),
        conventions(),
        *_progress(records, info, marks),
        *_curves(records, best, info, marks),
        *_choices(records, best, info, marks),
        *_cost(records, info),
        *_failures(records),
        *_environment(info),
    ]
    return html.page(view.title, view.facts, view.note, sections)


def _progress(records: DataFrame, info: StudyInfo, marks: Landmarks) -> Iterator[str]:
    if comparable(records).empty:
        return
    axes = [AXES[name] for name in costs_of(records)]
    reference = reference_point(marks, info, [axis.column for axis in axes])
    if not np.isfinite(reference).all():
        return
    ends = " and ".join(
        f"{axis.write(end)} {axis.noun}" for axis, end in zip(axes, reference[1:], strict=True)
    )
    progress = hypervolume_over_time(records, reference)
    yield "<h2>How the front grew</h2>"
    yield html.side_by_side(
        _plot(progress_figure(progress, "trials"), "progress-trials", "low"),
        _plot(progress_figure(progress, "hours"), "progress-hours", "low"),
    )
    yield html.small(
        "The hypervolume is what the front dominates, as a share of the box between guessing "
        f"({100 * reference[0]:.3g} %) and a perfect accuracy, and between nothing and "
        f"{ends}, twice the plain backbone. The axis starts at its first value."
    )


def _curves(
    records: DataFrame, best: DataFrame, info: StudyInfo, marks: Landmarks
) -> Iterator[str]:
    if not records["curve"].map(bool).any():
        return
    yield "<h2>Learning curves</h2>"
    yield _plot(curves_figure(records, best, info, marks), "curves")
    yield html.small(
        "Each mark stands at the last epoch of a trial; a name in the legend hides its trials."
        + _pruned_when(records)
    )


def _pruned_when(records: DataFrame) -> str:
    after = records.loc[records["state"] == "pruned", "epochs"].value_counts().sort_index()
    if after.empty:
        return ""
    return (
        f" Pruned: {', '.join(f'{number} after epoch {epoch}' for epoch, number in after.items())}."
    )


def _choices(
    records: DataFrame, best: DataFrame, info: StudyInfo, marks: Landmarks
) -> Iterator[str]:
    full = comparable(records)
    if len(full) < 2:
        return
    if len(info.backbones) > 1:
        yield html.small(
            "The trials have different backbones, and so no choices in common to compare."
        )
        return
    (plain,) = marks.plain.values()
    effects = stage_effects(records)
    yield "<h2>Which stage wants AFI</h2>"
    if effects:
        yield _plot(stage_figure(effects, plain.macs), "stages", "low")
        yield _stage_table(effects, plain.macs)
        yield html.small(
            "What AFI changes in a stage against the same stage without it, all other stages being "
            "equal: a linear fit to the trials of full fidelity, with 95 % intervals; beside each "
            "the change of MACs, in per cent of the plain backbone. Trials that were pruned are "
            "not in it, so that effects which they were pruned for come out too small."
        )
    else:
        yield html.small("There are too few trials of full fidelity yet to tell the stages apart.")
    yield "<h2>Importance of each choice</h2>"
    weights = importance(records)
    if weights.empty:
        yield html.small(f"Takes {FEWEST_TRIALS} trials of full fidelity; there are {len(full)}.")
    else:
        yield _plot(importance_figure(weights), "importance")
        yield html.small(
            "PED-ANOVA: how much the best tenth of the trials of full fidelity (at least five) "
            "differ from the rest in a choice. It says that a choice matters, not which level of "
            "it is better; with few trials chance alone gives every choice some importance."
            + (f" The first {MOST_CHOICES} are drawn." if len(weights) > MOST_CHOICES else "")
        )
    yield "<h2>The choices of each trial</h2>"
    choices = parallel_figure(records, best, info, marks)
    axes = len(choices.layout.xaxis.tickvals)
    yield html.wide(_plot(choices, "choices"), least=REM_AN_AXIS * axes)
    yield html.small(
        "A line a trial of full fidelity, the darker the more accurate; \N{EN DASH} is what "
        "does not apply to a stage without AFI. Click a name in the legend to hide its lines."
    )


def _stage_table(effects: list[StageEffect], plain_macs: float) -> str:
    columns = {
        "stage": "number",
        "width": "text",
        "trials with it": "number",
        "accuracy, points": "number",
        "MACs, % of plain": "number",
    }
    rows = [
        (
            str(effect.stage),
            effect.width,
            str(effect.trials),
            f"{signed(100 * effect.accuracy, 2)} \N{PLUS-MINUS SIGN} {100 * effect.error:.2f}",
            signed(100 * effect.macs / plain_macs, 1),
        )
        for effect in effects
    ]
    return html.table(columns, rows)


def _cost(records: DataFrame, info: StudyInfo) -> Iterator[str]:
    spent = effort(records, info.epochs)
    if not spent.epochs:
        return
    yield "<h2>What the study cost</h2>"
    if len(spent.epochs) > 1 or spent.epochs_saved:
        yield _plot(effort_figure(spent), "effort", "strip")
    yield _effort_table(spent)
    if spent.epochs_saved:
        yield html.small(
            f"Without pruning there would have been {spent.epochs_saved:,} epochs more; "
            f"{100 * spent.share_saved:.0f} % were saved. Their time is estimated from each "
            f"trial's own pace."
        )


def _effort_table(spent: Effort) -> str:
    rows = [
        (name, f"{epochs:,}", duration(spent.seconds[name]))
        for name, epochs in spent.epochs.items()
    ]
    total = (sum(spent.epochs.values()), sum(spent.seconds.values()))
    rows.append(("all that was trained", f"{total[0]:,}", duration(total[1])))
    if spent.epochs_saved:
        rows.append((SAVED, f"{spent.epochs_saved:,}", duration(spent.seconds_saved)))
    columns = {"trials": "text", "epochs": "number", "time in training": "number"}
    return html.table(columns, rows)


def _failures(records: DataFrame) -> Iterator[str]:
    failed = records[records["state"] == "failed"]
    if failed.empty:
        return
    yield "<h2>Trials that failed</h2>"
    yield html.table(
        {"trial": "number", "architecture": "name", "after epoch": "number", "reason": "text"},
        [
            (f"#{row['number']}", row["architecture"], str(row["epochs"]), row["reason"])
            for row in failed.head(MOST_FAILURES).to_dict("records")
        ],
    )
    if len(failed) > MOST_FAILURES:
        yield html.small(f"And {len(failed) - MOST_FAILURES} more; see trials.csv.")


def _environment(info: StudyInfo) -> Iterator[str]:
    facts = {
        "backbone": ", ".join(info.backbones),
        "data set": f"{info.dataset}, {info.num_classes} classes, "
        f"{info.image_size} x {info.image_size} pixels",
        "device": info.device,
        **info.environment,
    }
    yield "<h2>Environment</h2>"
    yield html.table(
        {"fact": "text", "value": "name"}, [(name, value) for name, value in facts.items() if value]
    )


def _plot(figure: go.Figure, name: str, height: str = "tall") -> str:
    return html.plot(figure, name, with_script=False, height=height)
