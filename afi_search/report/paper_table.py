"""The paper's Tables 4 and 5 beside the counts of the same networks built here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from afi_search.cost import CONVENTIONS, Cost, measure
from afi_search.formatting import mega, signed
from afi_search.report.table import TerminalTable
from afi_search.study.paper import PaperResult, paper_data, paper_results

SCHEMA_VERSION = 1
TITLES = {4: "Table 4: CIFAR-100", 5: "Table 5: ImageNet"}
COLUMNS = (
    *("params\npaper", "\nours", "\ndiff %", "FLOPs\npaper", "G\nours", "\ndiff %"),
    *("MACs M\nours", "top-1\npaper"),
)
_UNITS = {"K": 1e3, "M": 1e6}
_AS_PRINTED = ("table", "model", "architecture", "same_network", "top1", "top5", "note")


class Comparison(NamedTuple):
    """A row of the paper, and our counts of the network that is built here for it.

    `our_params` is written as the paper writes its own. A change is ours against the printed
    figure, as a share of it; 0 where only rounding differs.
    """

    paper: PaperResult
    cost: Cost
    printed_params: int
    our_params: str
    params_change: float
    flops_change: float


def compare() -> tuple[Comparison, ...]:
    """Measure every row of the paper's Tables 4 and 5.

    >>> plain = compare()[0]
    >>> plain.paper.model, plain.paper.printed_params, plain.our_params
    ('ResNet-32', '472.76K', '472.76K')
    """
    return tuple(_compared(row) for row in paper_results() if row.table is not None)


def _compared(paper: PaperResult) -> Comparison:
    of, written, printed_flops = paper.dataset, paper.printed_params, paper.flops_g
    assert written is not None and printed_flops is not None
    cost = measure(paper.architecture, num_classes=of.num_classes, image_size=of.image_size)
    unit = _UNITS[written[-1]]
    printed, ours = round(float(written[:-1]) * unit), f"{cost.params / unit:.2f}{written[-1]}"
    flops = cost.paper_gflops
    return Comparison(
        paper,
        cost,
        printed,
        ours,
        params_change=0.0 if ours == written else cost.params / printed - 1,
        flops_change=0.0 if round(flops, 2) == printed_flops else flops / printed_flops - 1,
    )


def paper_tables(rows: Sequence[Comparison]) -> RenderableType:
    """Return both tables for the terminal, with their notes and conventions."""
    notes = list(dict.fromkeys(row.paper.note for row in rows if row.paper.note))
    told = [
        *(f"[{number}] {note}" for number, note in enumerate(notes, start=1)),
        "",
        f"params: {CONVENTIONS['params']}",
        f"FLOPs G: {CONVENTIONS['paper_gflops']}",
        f"MACs M: in millions; {CONVENTIONS['macs']}",
        "=: the printed digits; * another network than the paper counted, see the note",
    ]
    return Group(*(_table(number, rows, notes) for number in TITLES), Text("\n".join(told)))


def _table(number: int, rows: Iterable[Comparison], notes: list[str]) -> Table:
    table = TerminalTable(TITLES[number])
    table.add_names("model\n")
    for heading in COLUMNS:
        table.add_figures(heading)
    for paper, cost, _, our_params, *changes in rows:
        if paper.table != number:
            continue
        remark = f" [{notes.index(paper.note) + 1}]" if paper.note else ""
        params, flops = (signed(100 * change, 2) if change else "=" for change in changes)
        table.add_row(
            escape(f"{paper.model}{'' if paper.same_network else ' *'}{remark}"),
            *(paper.printed_params, our_params, params),
            *(f"{paper.flops_g:.2f}", f"{cost.paper_gflops:.2f}", flops),
            *(mega(cost.macs), f"{paper.top1:.2f}"),
            style=None if paper.same_network else "dim",
        )
    return table


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
