"""The front as rows of text, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table

from afi_search.formatting import against, count, mega, percent, with_names
from afi_search.report.view import StudyView

OVER_PLAIN = "over plain, points"
CONVENTIONS = {
    "accuracy, %": "accuracy: held-out validation images",
    OVER_PLAIN: "over plain: less that of the plain backbone, 95 %",
    "MACs, M": "MACs: multiply-accumulates of conv and linear layers and AFI scoring, per image",
    "paper FLOPs, G": "paper G: the paper's FLOPs in billions, batch 32",
}
SHORT = {"parameters": "params", "paper FLOPs, G": "paper, G"}
"""Names of figures that are shorter in the terminal."""
KEY_LINES = 20
_NAME_LETTERS, _EDGES = 16, 3
"""The column of architectures is so wide, where there is room."""
_LEAST_NAME = 12


class TerminalTable(Table):
    """Names and figures; where the figures leave no room for names, each row is a paragraph."""

    def __init__(self, title: str, caption: str | None = None) -> None:
        looks: dict[str, Any] = {"title_justify": "left", "caption_justify": "left"}
        looks |= {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0)}
        super().__init__(title=title, caption=caption, **looks)

    def add_names(self, heading: str) -> None:
        """Add the column of names, which is the first and may be folded."""
        self.add_column(heading, overflow="fold", min_width=_NAME_LETTERS)

    def add_figures(self, heading: str) -> None:
        """Add a column of figures, which stay whole."""
        self.add_column(heading, justify="right", no_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names, *figures = ([*map(str, column.cells)] for column in self.columns)
        headings = [str(column.header) for column in self.columns[1:]]
        needed = (_width([name, *cells]) for name, cells in zip(headings, figures, strict=True))
        if _LEAST_NAME + _EDGES + sum(needed) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        yield console.render_str(str(self.title or ""))
        for name, *cells in zip(names, *figures, strict=True):
            yield console.render_str(name)
            in_a_line = (" ".join(heading.split()) for heading in headings)
            yield Padding(with_names(zip(in_a_line, cells, strict=True)), (0, 0, 1, 2))
        yield console.render_str(str(self.caption or ""))


def _width(cells: Sequence[str]) -> int:
    return 2 + max(cell_len(line) for cell in cells for line in cell.split("\n"))


def front_rows(view: StudyView) -> list[dict[str, str]]:
    """Write out a study's front, cheapest first, the cost that it is drawn over in front."""
    lead = "parameters" if view.axis.column == "params" else view.axis.heading
    rows = []
    for label, row in zip(view.front.index, view.front.to_dict("records"), strict=True):
        figures = {
            "MACs, M": mega(row["macs"]),
            "vs plain": against(row["macs"], view.references.plain[row["backbone"]].macs),
            **{cost.heading: cost.write(row[cost.column]) for cost in view.measured(row)},
            "parameters": count(row["params"]),
            "paper FLOPs, G": f"{row['paper_gflops']:.2f}",
            "epochs": str(row["epochs"]),
            "seed": str(row["seed"]),
            **({"weights at first": row["init"]} if "inherited" in set(view.front["init"]) else {}),
        }
        named = {
            "trial": f"#{row['number']}",
            "architecture": row["architecture"],
            "accuracy, %": percent(row["accuracy"]),
        }
        rows.append(named | {lead: figures[lead], OVER_PLAIN: view.gains.get(label, "")} | figures)
    return rows


def plain_rows(view: StudyView) -> list[dict[str, str]]:
    """Write out the plain backbones, with their accuracy where they were trained to the end."""
    return [
        {
            "architecture": f"{name} (plain)",
            "accuracy, %": percent(view.accuracies[name]) if name in view.accuracies else "",
            "MACs, M": mega(cost.macs),
            "parameters": count(cost.params),
            "paper FLOPs, G": f"{cost.paper_gflops:.2f}",
        }
        for name, cost in view.references.plain.items()
    ]


def front_key(view: StudyView, labels: Collection[str]) -> list[list[str]]:
    """Return what stands below the picture: the first figures of the front, cheapest first.

    Of a long front it names trials that are labelled in the picture, and says how many are left.
    """
    rows = shown = front_rows(view)
    if not rows:
        return []
    if len(rows) > KEY_LINES:
        shown = [row for row in rows if row["trial"] in labels][: KEY_LINES - 1]
    columns = list(rows[0])[:5]
    lines = [["front", "", *columns[2:]], *([row[name] for name in columns] for row in shown)]
    if len(shown) < len(rows):
        lines.append(["", f"and {len(rows) - len(shown)} more", *[""] * len(columns[2:])])
    return lines


def front_table(view: StudyView, width: int) -> Table:
    """Return the front, cheapest first, with the plain backbones below; see `fitting_table`."""
    plain = plain_rows(view)
    if rows := front_rows(view):
        columns = [*(name for name in rows[0] if name not in ("trial", "seed")), "trial"]
    else:
        columns = ["architecture", "MACs, M", "parameters", "paper FLOPs, G"]
        nothing = f"none yet: no trial has reached full fidelity ({view.info.epochs} epochs)"
        rows = [{"architecture": nothing}]
    return fitting_table(f"Front of {view.info.name}", CONVENTIONS, columns, rows, width, plain)


def fitting_table(
    title: str,
    conventions: Mapping[str, str],
    columns: list[str],
    rows: list[dict[str, str]],
    width: int,
    plain: Sequence[dict[str, str]] = (),
) -> Table:
    """Return a table that leaves out columns where `width` letters are too narrow.

    The first three, the architecture among them, always stay; the fourth and then the last are the
    next to. Below stand the conventions of the columns that are shown. `plain` are further rows,
    dim, below a line.
    """
    shown = _fitting(columns, [*rows, *plain], width)
    begun = {_heading(name).split("\n")[0] for name in shown}
    headings = (_heading(name).split("\n") for name in columns if name not in shown)
    left_out = [f"{text} {unit}" if text in begun else text for text, unit in headings]
    wider = [f"a wider terminal adds {', '.join(left_out)}"] if left_out else []
    told = [text for name, text in conventions.items() if name in shown]
    table = TerminalTable(title, "; ".join([*told, *wider]))
    for name in shown:
        if name == "architecture":
            table.add_names(name)
        else:
            table.add_figures(_heading(name))
    for some, style in ((rows, None), (plain, "dim")):
        for row in some:
            table.add_row(*(row.get(name, "") for name in shown), style=style)
        table.add_section()
    return table


def _fitting(columns: list[str], rows: list[dict[str, str]], width: int) -> list[str]:
    lasting = columns[:3]
    room = width - _NAME_LETTERS - _EDGES
    fitting = []
    for name in dict.fromkeys([*lasting, *columns[3:4], columns[-1], *columns[4:]]):
        taken = _width([_heading(name), *(row.get(name, "") for row in rows)])
        if name in lasting or taken <= room:
            room -= 0 if name == "architecture" else taken
            fitting.append(name)
    return [name for name in columns if name in fitting]


def _heading(name: str) -> str:
    """Return what stands above a column, in two lines."""
    text, _, unit = SHORT.get(name, name).partition(", ")
    return f"{text}\n{unit}"
