"""What a report writes into a study's folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pandas import DataFrame

from afi_search.cost import CONVENTIONS
from afi_search.errors import UserError
from afi_search.files import Content, csv_of, plain, write_together, write_whole
from afi_search.report.front_plot import front_figure
from afi_search.report.front_png import front_png
from afi_search.report.page import front_page
from afi_search.report.view import StudyView
from afi_search.space.objective import own_measures
from afi_search.study.pareto import costs_of, hypervolume
from afi_search.study.reference import reference_point

SCHEMA_VERSION = 1
FRONT_COLUMNS = (
    *("number", "architecture", "id", "accuracy", "macs", "params", "paper_gflops", "memory"),
    *("latency", "epochs", "seed", "seconds", "init"),
)


def write_report(view: StudyView, folder: Path) -> list[Path]:
    """Write front.csv, front.json, front.html, front.png and trials.csv; return their paths.

    Where no trial has reached full fidelity yet, the front is empty and the pictures say so.
    """
    figure = front_figure(view)
    contents: dict[str, Content] = {
        "front.csv": front_csv(view),
        "front.json": front_json(view),
        "front.html": front_page(view, figure),
        "front.png": front_png(view, figure),
        "trials.csv": _trials_csv(view.records),
    }
    return write_together(folder, contents)


def front_csv(view: StudyView) -> str:
    """Return the front as CSV, cheapest first; accuracy 0 to 1, MACs per image."""
    return csv_of(view.front[_front_columns(view)])


def write_trials(records: DataFrame, path: Path) -> Path:
    """Write a study's records as .csv or .parquet, where curves are lists; return the path."""
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"{path}: must end in .csv or .parquet")
    whole = _trials_csv(records) if path.suffix == ".csv" else records.to_parquet(index=False)
    return write_whole(path, whole)


def _trials_csv(records: DataFrame) -> str:
    """Return all trials as CSV, in the order of their numbers; the curve is JSON in its cell."""
    ordered = records.sort_values("number", kind="stable")
    curves = [c if math.isfinite(sum(c)) else plain(c) for c in ordered["curve"]]
    return csv_of(ordered.assign(curve=list(map(json.dumps, curves))))


def front_json(view: StudyView) -> str:
    """Return the front with its conventions, the study's facts and the references as JSON."""
    costs = costs_of(view.records)
    reference = reference_point(view.references, view.info, costs)
    states = view.records["state"].value_counts()
    document = {
        "schema_version": SCHEMA_VERSION,
        "conventions": {
            "accuracy": "share of the held-out validation images, split from the training set, "
            "that is classified correctly after the last epoch; 0 to 1",
            **CONVENTIONS,
            "paper.top1": "the paper's test accuracy after its own full training",
            "hypervolume": f"accuracy x {' x '.join(costs)} dominated by the front, up to the "
            "reference point: the accuracy of guessing, and twice what the (dearest) plain "
            "backbone costs; null where that is not known",
        },
        "study": view.info.as_dict(),
        "trials": {"total": len(view.records), **states.to_dict()},
        "hypervolume": float(f"{hypervolume(view.records, reference):.9g}"),
        "reference": dict(zip(("accuracy", *costs), reference, strict=True)),
        "plain": [
            {"architecture": name, **cost.figures()} for name, cost in view.references.plain.items()
        ],
        "front": view.front[[*_front_columns(view), "curve"]].to_dict("records"),
        "paper": [
            {
                "model": result.model,
                "architecture": result.architecture,
                "top1": result.top1,
                "epochs": result.dataset.epochs,
                **cost.figures(),
            }
            for result, cost in view.references.paper
        ],
    }
    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"


def _front_columns(view: StudyView) -> list[str]:
    return [*FRONT_COLUMNS, *(name for name in own_measures() if name in view.records)]
