"""What a page says in numbers is what the program prints."""

from __future__ import annotations

import pytest

from afi_search.report.paper_table import compare
from tests.docs.pages import ROOT


@pytest.mark.slow
def test_the_papers_tables_are_as_the_command_prints_them() -> None:
    lines = (ROOT / "docs/paper.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "`" in line]
    shown = {cells[1]: cells for cells in rows if len(cells) == 10}
    for row in compare():
        cells = shown[f"`{row.paper.architecture}`"]
        assert cells[0].split(" [")[0].removesuffix(" *") == row.paper.model
        assert cells[2] == row.paper.printed_params
        assert cells[3] == row.our_params
        assert cells[5:7] == [f"{row.paper.flops_g:.2f}", f"{row.cost.paper_gflops:.2f}"]
        assert cells[8:] == [f"{row.cost.macs / 1e6:,.2f}", f"{row.paper.top1:.2f}"]
        for change, text in ((row.params_change, cells[4]), (row.flops_change, cells[7])):
            assert text == (
                f"{100 * change:+.2f} %".replace("-", "\N{MINUS SIGN}") if change else "="
            )
