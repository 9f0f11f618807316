"""What a report writes into a study's folder."""

from __future__ import annotations

import json
from pathlib import Path

from pandas import DataFrame

from afi_search.files import plain, write_whole
from afi_search.report.front_plot import FRONT, facts, front_figure, heading
from afi_search.report.front_png import front_png
from afi_search.report.page import front_page
from afi_search.report.table import front_key
from afi_search.space.objective import own_measures
from afi_search.study.info import (
    ACCURACY_CONVENTION,
    LATENCY_CONVENTION,
    MACS_CONVENTION,
    MEMORY_CONVENTION,
    PAPER_ACCURACY_CONVENTION,
    PAPER_FLOPS_CONVENTION,
    PARAMS_CONVENTION,
    StudyInfo,
)
from afi_search.study.pareto import costs_of, front, hypervolume
from afi_search.study.reference import References, measure_references, reference_point

SCHEMA_VERSION = 1
FRONT_COLUMNS = (
    "number",
    "architecture",
    "id",
    "accuracy",
    "macs",
    "params",
    "paper_gflops",
    "memory",
    "latency",
    "epochs",
    "seed",
    "seconds",
)


def write_report(records: DataFrame, info: StudyInfo, folder: Path) -> list[Path]:
    """Write front.csv, front.json, front.html, front.png and trials.csv; return their paths.

    Each file is replaced as a whole or not at all. Where no trial has reached full fidelity yet,
    the files are written all the same, with an empty front, and the pictures say so.

    Args:
        records: the ledger's trials.
        info: the study's facts.
        folder: where to write; made where it is missing.

    Raises:
        ValueError: a column of `records` is missing.
        UnknownBackbone: the study's backbone is not registered.
    """
    references = measure_references(info, records)
    contents: dict[str, str | bytes] = {
        "front.csv": front_csv(records),
        "front.json": front_json(records, info, references),
        "front.html": front_page(records, info, references),
        "front.png": front_picture(records, info, references),
        "trials.csv": trials_csv(records),
    }
    return [write_whole(folder / name, content) for name, content in contents.items()]


def front_picture(records: DataFrame, info: StudyInfo, references: References) -> bytes:
    """Return the picture of the front as a PNG, with a key of its architectures below."""
    figure = front_figure(records, info, references)
    labels = [label for trace in figure.select_traces({"name": FRONT}) for label in trace.text]
    remarks = [" \N{MIDDLE DOT} ".join(facts(records, info)), info.note]
    return front_png(figure, heading(info), remarks, front_key(records, references, labels))


def front_csv(records: DataFrame) -> str:
    """Return the front as CSV, cheapest first; accuracy 0 to 1, MACs per image."""
    text: str = front(records)[_front_columns(records)].to_csv(index=False, lineterminator="\n")
    return text


def trials_csv(records: DataFrame) -> str:
    """Return all trials as CSV, in the order of their numbers; the curve is JSON in its cell."""
    ordered = records.sort_values("number", kind="stable")
    written = ordered.assign(curve=[json.dumps(plain(curve)) for curve in ordered["curve"]])
    text: str = written.to_csv(index=False, lineterminator="\n")
    return text


def front_json(records: DataFrame, info: StudyInfo, references: References) -> str:
    """Return the front with its conventions, the study's facts and the references as JSON."""
    costs = costs_of(records)
    reference = reference_point(references, info, costs)
    states = records["state"].value_counts()
    document = {
        "schema_version": SCHEMA_VERSION,
        "conventions": {
            "accuracy": ACCURACY_CONVENTION,
            "macs": MACS_CONVENTION,
            "params": PARAMS_CONVENTION,
            "paper_gflops": PAPER_FLOPS_CONVENTION,
            "memory": MEMORY_CONVENTION,
            "latency": LATENCY_CONVENTION,
            "paper.top1": PAPER_ACCURACY_CONVENTION,
            "hypervolume": f"accuracy x {' x '.join(costs)} dominated by the front, up to the "
            "reference point: the accuracy of guessing, and twice what the (dearest) plain "
            "backbone costs; null where that is not known",
        },
        "study": info.as_dict(),
        "trials": {"total": len(records), **{str(name): int(n) for name, n in states.items()}},
        "hypervolume": hypervolume(records, reference),
        "reference": dict(zip(("accuracy", *costs), reference, strict=True)),
        "plain": [
            {"architecture": name, **cost.figures()} for name, cost in references.plain.items()
        ],
        "front": front(records)[[*_front_columns(records), "curve"]].to_dict("records"),
        "paper": [
            {
                "model": result.model,
                "architecture": result.architecture,
                "top1": result.top1,
                "epochs": result.dataset.epochs,
                **cost.figures(),
            }
            for result, cost in references.paper
        ],
    }
    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"


def _front_columns(records: DataFrame) -> list[str]:
    return [*FRONT_COLUMNS, *(name for name in own_measures() if name in records)]
