"""The front as rows of text, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pandas import DataFrame
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from afi_search.formatting import against, count, mega, percent
from afi_search.report.axis import axis_named, axis_of
from afi_search.report.front_plot import measured
from afi_search.study.info import StudyInfo
from afi_search.study.pareto import front
from afi_search.study.reference import References, measure_references

CAPTION = (
    "accuracy: held-out validation images; "
    "MACs: multiply-accumulates of conv and linear layers and AFI scoring, per image; "
    "paper G: the paper's FLOPs in billions, batch 32"
)
SHORT = {"parameters": "params", "paper FLOPs, G": "paper, G"}
"""Names of figures that are shorter in the terminal."""
KEY_LINES = 20
NAME_LETTERS = 16
"""The column of architectures is at least so wide."""


def front_rows(records: DataFrame, references: References) -> list[dict[str, str]]:
    """Write out a study's front, cheapest first: the name of each figure -> the figure.

    The cost that the front is drawn over stands first after the accuracy.
    """
    axis = axis_of(records)
    lead = "parameters" if axis.column == "params" else axis.heading
    rows = []
    for row in front(records).to_dict("records"):
        figures = {
            "MACs, M": mega(row["macs"]),
            "vs plain": against(row["macs"], references.plain[row["backbone"]].macs),
            **{
                (further := axis_named(name)).heading: further.write(row[name])
                for name in measured(row)
            },
            "parameters": count(row["params"]),
            "paper FLOPs, G": f"{row['paper_gflops']:.2f}",
            "epochs": str(row["epochs"]),
            "seed": str(row["seed"]),
        }
        named = {
            "trial": f"#{row['number']}",
            "architecture": row["architecture"],
            "accuracy, %": percent(row["accuracy"]),
        }
        rows.append(named | {lead: figures[lead]} | figures)
    return rows


def front_key(
    records: DataFrame, references: References, labels: Collection[str]
) -> list[list[str]]:
    """Return what stands below the picture: trial, architecture, accuracy, cost; cheapest first.

    Of a long front it names trials that are labelled in the picture, and says how many are left.
    """
    rows = shown = front_rows(records, references)
    if not rows:
        return []
    if len(rows) > KEY_LINES:
        shown = [row for row in rows if row["trial"] in labels][: KEY_LINES - 1]
    columns = list(rows[0])[:4]
    lines = [["front", "", *columns[2:]], *([row[name] for name in columns] for row in shown)]
    if len(shown) < len(rows):
        lines.append(["", f"and {len(rows) - len(shown)} more", "", ""])
    return lines


def front_table(records: DataFrame, info: StudyInfo) -> FrontTable:
    """Return the front for the terminal, cheapest first, with the plain backbones below it.

    Raises:
        ValueError: a column of `records` is missing.
        UnknownBackbone: the study's backbone is not registered.
    """
    references = measure_references(info, records)
    rows = front_rows(records, references)
    plain = [
        {
            "architecture": f"{name} (plain)",
            "MACs, M": mega(cost.macs),
            "parameters": count(cost.params),
            "paper FLOPs, G": f"{cost.paper_gflops:.2f}",
        }
        for name, cost in references.plain.items()
    ]
    if not rows:
        nothing = f"none yet: no trial has reached full fidelity ({info.epochs} epochs)"
        return FrontTable(info.name, [{"architecture": nothing}], plain, list(plain[0]))
    shown = [name for name in rows[0] if name not in ("trial", "seed")]
    return FrontTable(info.name, rows, plain, [*shown, "trial"])


@dataclass(frozen=True)
class FrontTable:
    """A table that leaves out the last columns where the terminal is too narrow for them.

    Attributes:
        name: of the study.
        rows: the front; the name of a figure -> the figure.
        plain: the plain backbones, likewise.
        columns: the names of the figures, the architecture first; the trial, where there is one,
            stands last and is the first to stay after accuracy and cost.
    """

    name: str
    rows: Sequence[dict[str, str]]
    plain: Sequence[dict[str, str]]
    columns: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._fitting(options.max_width)
        left_out = [_heading(name).split("\n")[0] for name in self.columns if name not in shown]
        table = Table(
            title=f"Front of {self.name}",
            title_justify="left",
            caption="; ".join(
                [CAPTION, *([f"a wider terminal adds {', '.join(left_out)}"] if left_out else [])]
            ),
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        for name in shown:
            if name == "architecture":
                table.add_column(name, overflow="fold", min_width=NAME_LETTERS)
            else:
                table.add_column(_heading(name), justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(*(row.get(name, "") for name in shown))
        table.add_section()
        for row in self.plain:
            table.add_row(*(row.get(name, "") for name in shown), style="dim")
        yield table

    def _fitting(self, width: int) -> list[str]:
        """Return the columns for which there is room; architecture, accuracy and cost always."""
        lasting = self.columns[:3]
        by_rank = [*lasting, *self.columns[:2:-1][:1], *self.columns[3:-1]]
        room = width - NAME_LETTERS - 3
        fitting = []
        for name in by_rank:
            cells = [row.get(name, "") for row in (*self.rows, *self.plain)]
            taken = 2 + max(cell_len(text) for text in (*cells, *_heading(name).split("\n")))
            room -= 0 if name == "architecture" else taken
            if name not in lasting and room < 0:
                break
            fitting.append(name)
        return [name for name in self.columns if name in fitting]


def _heading(name: str) -> str:
    """Return what stands above a column, in two lines."""
    text, _, unit = SHORT.get(name, name).partition(", ")
    return f"{text}\n{unit}"
