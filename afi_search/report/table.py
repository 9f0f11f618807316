"""The front as a table for the terminal."""

from __future__ import annotations

from pandas import DataFrame
from rich import box
from rich.table import Table

from afi_search.formatting import count, mega
from afi_search.report.front_rows import front_rows
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import front
from afi_search.study.reference import landmarks

CAPTION = (
    "accuracy: held-out validation images; "
    "MACs: multiply-accumulates of conv and linear layers and AFI scoring, per image; "
    "paper G: the paper's FLOPs in billions, batch 32"
)


def front_table(records: DataFrame, info: StudyInfo) -> Table:
    """Return the front, cheapest first, with the plain backbone's cost to compare with.

    Raises:
        ValueError: a column of `records` is missing.
        UnknownBackbone: the study's backbone is not registered.
    """
    marks = landmarks(info, records)
    rows = front_rows(front(records), marks)
    further = list(rows[0].measured) if rows else []
    table = Table(
        title=f"Front of {info.name}",
        title_justify="left",
        caption=CAPTION,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("architecture", overflow="fold", min_width=16)
    headings = ["accuracy\n%", "MACs\nM", "vs plain\n"]
    headings += [heading.replace(", ", "\n") for heading in further]
    headings += ["params\n", "paper\nG", "epochs\n"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("trial\n", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.architecture,
            row.accuracy,
            row.macs,
            row.against_plain,
            *row.measured.values(),
            row.params,
            row.paper_gflops,
            row.epochs,
            row.trial,
        )
    if not rows:
        table.add_row(f"none yet: no trial has reached full fidelity ({info.epochs} epochs)")
    table.add_section()
    for name, cost in marks.plain.items():
        table.add_row(
            f"{name} (plain)",
            "",
            mega(cost.macs),
            "",
            *("" for _ in further),
            count(cost.params),
            f"{cost.paper_gflops:.2f}",
            "",
            "",
            style="dim",
        )
    return table
