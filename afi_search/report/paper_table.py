"""The paper's Tables 4 and 5 beside the counts of the same networks built here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from afi_search.cost import CONVENTIONS, Cost, measure
from afi_search.formatting import mega, signed
from afi_search.report.table import terminal_table
from afi_search.study.paper import PaperResult, paper_data, paper_results

SCHEMA_VERSION = 1
TITLES = {4: "Table 4: CIFAR-100", 5: "Table 5: ImageNet"}
COLUMNS = ("params\npaper", "\nours", "\ndiff %", "FLOPs\npaper", "G\nours", "\ndiff %")
_UNITS = {"K": 1e3, "M": 1e6}
_AS_PRINTED = ("table", "model", "architecture", "same_network", "top1", "top5", "note")


class Comparison(NamedTuple):
    """A row of the paper, and our counts of the network that is built here for it."""

    paper: PaperResult
    cost: Cost

    @property
    def printed_params(self) -> float:
        """The paper's number of parameters, as far as it is printed."""
        printed = self.paper.printed_params or "nanM"
        return float(printed[:-1]) * _UNITS[printed[-1]]

    @property
    def our_params(self) -> str:
        """Our number of parameters, written as the paper writes it in this row."""
        unit = (self.paper.printed_params or "M")[-1]
        return f"{self.cost.params / _UNITS[unit]:.2f}{unit}"

    @property
    def params_change(self) -> float:
        """Our parameters against the printed ones, as a share; 0 where only rounding differs."""
        alike = self.our_params == self.paper.printed_params
        return 0.0 if alike else self.cost.params / self.printed_params - 1

    @property
    def flops_change(self) -> float:
        """Our FLOPs, counted as the paper does, against the printed ones, likewise."""
        ours, printed = self.cost.paper_gflops, self.paper.flops_g or math.nan
        return 0.0 if round(ours, 2) == printed else ours / printed - 1


def compare() -> tuple[Comparison, ...]:
    """Measure every row of the paper's Tables 4 and 5.

    >>> plain = compare()[0]
    >>> plain.paper.model, plain.paper.printed_params, plain.our_params
    ('ResNet-32', '472.76K', '472.76K')
    """
    return tuple(
        Comparison(
            row, measure(row.architecture, num_classes=of.num_classes, image_size=of.image_size)
        )
        for row in paper_results()
        if row.table is not None
        for of in [row.dataset]
    )


def paper_tables(rows: Sequence[Comparison]) -> RenderableType:
    """Return both tables for the terminal, with their notes and conventions."""
    notes = list(dict.fromkeys(row.paper.note for row in rows if row.paper.note))
    tables = [_table(number, rows, notes) for number in TITLES]
    remarks = [f"[{number}] {note}" for number, note in enumerate(notes, start=1)]
    conventions = [
        f"params: {CONVENTIONS['params']}",
        f"FLOPs G: {CONVENTIONS['paper_gflops']}",
        f"MACs M: in millions; {CONVENTIONS['macs']}",
        "=: the printed digits; * another network than the paper counted, see the note",
    ]
    return Group(*tables, Text("\n".join([*remarks, "", *conventions])))


def _table(number: int, rows: Iterable[Comparison], notes: list[str]) -> Table:
    table = terminal_table(TITLES[number])
    table.add_column("model\n", overflow="fold", min_width=16)
    for heading in (*COLUMNS, "MACs M\nours", "top-1\npaper"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        paper = row.paper
        if paper.table != number:
            continue
        remark = f" [{notes.index(paper.note) + 1}]" if paper.note else ""
        star = "" if paper.same_network else " *"
        table.add_row(
            escape(f"{paper.model}{star}{remark}"),
            paper.printed_params,
            row.our_params,
            _shown(row.params_change),
            f"{paper.flops_g:.2f}",
            f"{row.cost.paper_gflops:.2f}",
            _shown(row.flops_change),
            mega(row.cost.macs),
            f"{paper.top1:.2f}",
            style=None if paper.same_network else "dim",
        )
    return table


def _shown(change: float) -> str:
    return signed(100 * change, 2) if change else "="


def paper_tables_json(rows: Iterable[Comparison]) -> str:
    """Return both tables as JSON, the differences as shares of the printed figures."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "source": paper_data()["source"],
        "conventions": {
            "params": CONVENTIONS["params"],
            "flops_g": CONVENTIONS["paper_gflops"],
            "macs": CONVENTIONS["macs"],
            "change": "ours against the printed figure, as a share of it; 0 where ours rounds to "
            "the printed digits",
            "same_network": "whether the printed counts are those of the network they name",
        },
        "rows": [
            {
                **{name: getattr(row.paper, name) for name in _AS_PRINTED},
                "dataset": row.paper.dataset.name,
                "params": _both(row.printed_params, row.cost.params, row.params_change),
                "flops_g": _both(row.paper.flops_g, row.cost.paper_gflops, row.flops_change),
                "macs": row.cost.macs,
            }
            for row in rows
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _both(printed: float | None, ours: float, change: float) -> dict[str, float | None]:
    return {"printed": printed, "ours": ours, "change": change}
