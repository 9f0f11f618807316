"""The front as rows of text, the same for the terminal and for pages."""

from __future__ import annotations

from dataclasses import dataclass

from pandas import DataFrame

from afi_search.formatting import against, count, mega, percent
from afi_search.report.axis import AXES
from afi_search.report.view import measured
from afi_search.study.reference import Landmarks


@dataclass(frozen=True)
class FrontRow:
    """One trial of the front, every figure written out.

    Attributes:
        trial: its number, like `#12`.
        architecture: the canonical text.
        accuracy: in per cent.
        macs: per image, in millions.
        against_plain: the change of MACs against the plain backbone, in per cent.
        measured: further costs, as far as the study asked for them; headings to figures.
        params: with its unit.
        paper_gflops: the paper's FLOPs in billions, batch 32.
        epochs: trained.
        seed: of weights and batches.
    """

    trial: str
    architecture: str
    accuracy: str
    macs: str
    against_plain: str
    measured: dict[str, str]
    params: str
    paper_gflops: str
    epochs: str
    seed: str


def front_rows(best: DataFrame, marks: Landmarks) -> list[FrontRow]:
    """Write out a front, in its order."""
    return [
        FrontRow(
            trial=f"#{row['number']}",
            architecture=row["architecture"],
            accuracy=percent(row["accuracy"]),
            macs=mega(row["macs"]),
            against_plain=against(row["macs"], marks.plain[row["backbone"]].macs),
            measured={AXES[name].heading: AXES[name].write(row[name]) for name in measured(row)},
            params=count(row["params"]),
            paper_gflops=f"{row['paper_gflops']:.2f}",
            epochs=str(row["epochs"]),
            seed=str(row["seed"]),
        )
        for row in best.to_dict("records")
    ]
