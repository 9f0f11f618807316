"""A self-contained HTML page: no request leaves it, so it opens anywhere and keeps for years."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.io import to_html

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem 1.25rem 3rem; color: #1f2933;
  background: #fff; font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; line-height: 1.3; margin: .25rem 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
p { margin: .4rem 0; max-width: 60rem; }
.facts { color: #52606d; }
.facts span:not(:last-child)::after { content: " \\00b7"; }
.note { border-left: 3px solid #d55e00; padding: .15rem .75rem; }
.small { color: #52606d; font-size: .87em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93em; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .9rem .25rem 0; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid #cbd2d9; vertical-align: bottom; }
td { border-bottom: 1px solid #e4e7eb; white-space: nowrap; }
th.text, td.text { text-align: left; }
td.name { text-align: left; font-family: ui-monospace, monospace; font-size: .93em;
  white-space: normal; min-width: 15rem; }
td.name span { white-space: nowrap; }
.plot { height: min(78vh, 40rem); min-height: 30rem; }
.plot.low { height: 22rem; min-height: 0; }
.plot.strip { height: 11rem; min-height: 0; }
.pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 1rem; }
.wide { overflow-x: auto; }
@media (max-width: 600px) {
  body { padding: .75rem .75rem 2rem; font-size: 14px; }
  h1 { font-size: 1.15rem; }
  td.name { min-width: 9rem; }
  .modebar-container { display: none; }
  .pair { grid-template-columns: minmax(0, 1fr); }
}
"""

# A page is scrolled with the finger that would otherwise zoom into a plot.
_ON_A_PHONE = """
if (window.matchMedia('(max-width: 600px)').matches) {
  Plotly.relayout('{plot_id}', {dragmode: false, 'font.size': 11, 'xaxis.title.font.size': 11});
}
"""

_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def page(title: str, facts: Iterable[str], note: str, sections: Iterable[str]) -> str:
    """Return a whole page from its heading and its sections, which are HTML already.

    The first plot of the sections has to bring plotly's script; see `plot`.
    """
    spans = " ".join(f"<span>{escape(fact)}</span>" for fact in facts)
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="facts">{spans}</p>
{told}
{body}
</body>
</html>
"""


def plot(figure: go.Figure, name: str, *, with_script: bool, height: str = "tall") -> str:
    """Return a figure as an element of the page.

    Args:
        figure: what to draw; it takes the size of its element.
        name: the element's id.
        with_script: whether to bring plotly's own script along; the first plot of a page must.
        height: `tall`, `low` or `strip`.
    """
    element: str = to_html(
        figure,
        full_html=False,
        include_plotlyjs=with_script,
        div_id=name,
        default_width="100%",
        default_height="100%",
        config=_CONFIG,
        post_script=_ON_A_PHONE,
    )
    return f'<div class="plot {height}">{element}</div>'


def side_by_side(*elements: str) -> str:
    """Return elements beside one another, or below where the screen is narrow."""
    return f'<div class="pair">{"".join(elements)}</div>'


def wide(element: str, least: int) -> str:
    """Return an element that scrolls sideways rather than to shrink below so many rem."""
    return f'<div class="wide"><div style="min-width: {least}rem">{element}</div></div>'


def small(text: str) -> str:
    """Return a remark."""
    return f'<p class="small">{escape(text)}</p>'


def table(columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table that scrolls sideways where the screen is narrow.

    Args:
        columns: headings, each with the class of its column: `number`, `text` or `name`.
        rows: the cells, as plain text.
    """
    classes = list(columns.values())
    head = "".join(
        f'<th class="{"text" if kind != "number" else "number"}">{escape(heading)}</th>'
        for heading, kind in columns.items()
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{_cell(cell, kind)}</td>'
            for kind, cell in zip(classes, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, kind: str) -> str:
    """Escape a cell; a name may break after its commas, but not at its hyphens."""
    if kind != "name":
        return escape(text)
    return ", ".join(f"<span>{escape(part)}</span>" for part in text.split(", "))
