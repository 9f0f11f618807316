"""The confirmed front on a page: what `afi-search confirm` has found, with its intervals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pandas import DataFrame

from afi_search.formatting import mega, percent
from afi_search.report import html

CONFIRMED_FILE = Path("confirm") / "confirmed.csv"
COLUMNS = {
    "architecture": "name",
    "from": "text",
    "test, %": "number",
    "validation, %": "number",
    "MACs, M": "number",
    "seeds": "number",
    "verdict": "text",
}


def read_confirmed_file(folder: Path) -> DataFrame | None:
    """Return what a study's confirmation has written; None where there is none."""
    path = folder / CONFIRMED_FILE
    return pd.read_csv(path) if path.is_file() else None


def confirmed_section(confirmed: DataFrame | None) -> str:
    """Return the confirmed architectures as a table, or nothing where there are none."""
    if confirmed is None or confirmed.empty:
        return ""
    rows = [
        (
            row["architecture"],
            row["origin"],
            f"{percent(row['test'])} \N{PLUS-MINUS SIGN} {percent(row['test_high'] - row['test'])}",
            f"{percent(row['validation'])} \N{PLUS-MINUS SIGN} "
            f"{percent(row['validation_high'] - row['validation'])}",
            mega(row["macs"]),
            str(row["seeds"]),
            row["verdict"],
        )
        for row in confirmed.to_dict("records")
    ]
    remark = html.small(
        "The full recipe, several seeds, and the test set, read once: means over the seeds with "
        "their 95 % intervals. A point stands where it is more accurate than every other that is "
        "as cheap or cheaper, is beaten where one of these is more accurate, and else is open."
    )
    return f"<h2>The confirmed front</h2>{html.table(COLUMNS, rows)}{remark}"
