from __future__ import annotations

import json

import pytest
from rich.console import Console

from afi_search.report.paper_table import Comparison, compare, paper_tables, paper_tables_json


@pytest.fixture(scope="module")
def rows() -> tuple[Comparison, ...]:
    return compare()


def test_both_tables_are_compared_row_by_row(rows: tuple[Comparison, ...]) -> None:
    assert [row.paper.table for row in rows] == [4] * 15 + [5] * 7


def test_rows_with_a_known_count_agree(rows: tuple[Comparison, ...]) -> None:
    known = [row for row in rows if row.paper.params is not None]
    assert len(known) == 19
    for row in known:
        assert row.cost.params == row.paper.params
        assert abs(row.flops_change) < 0.01
    assert [row.paper.model for row in known if row.params_change] == [
        "AFI-ResNet-110",
        "AFI-ResNet-50-B",
    ]


def test_rows_that_name_another_network_are_told_apart(rows: tuple[Comparison, ...]) -> None:
    other = [row for row in rows if not row.paper.same_network]
    assert [row.paper.model for row in other] == [
        "ShuffleNetV2",
        "AFI-ShuffleNetV2",
        "AFI-ShuffleNetV2-B",
    ]
    assert all(row.paper.note for row in other)
    assert other[0].cost.params == 1_356_104
    assert other[0].cost.paper_gflops == pytest.approx(1.479, abs=0.0005)


@pytest.mark.parametrize("width", [80, 140])
def test_every_figure_is_shown_whole_with_its_convention(
    rows: tuple[Comparison, ...], width: int
) -> None:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(paper_tables(rows))
    text = capture.get()
    flat = " ".join(text.split())
    lines = [" ".join(line.split()) for line in text.splitlines()]
    minus = "\N{MINUS SIGN}"
    assert "ResNet-32 472.76K 472.76K = 2.23 2.23 = 69.13 71.16" in lines
    assert any(line.endswith(f"1.35M 1.33M {minus}1.12 6.23 6.23 = 193.10 74.03") for line in lines)
    assert "ResNet-152 60.19M 60.19M = 369.88 369.88 = 11,514 77.00" in lines
    assert "the printed 1.35M is what r = 2 gives" in flat
    assert "ShuffleNetV2 *" in flat
    assert "[4] the printed counts are not those of ShuffleNetV2 1.0x" in flat
    assert "32 x (MACs + 2 x output elements of every batch norm)" in flat


def test_json_holds_every_row_with_both_figures(rows: tuple[Comparison, ...]) -> None:
    document = json.loads(paper_tables_json(rows))
    by_model = {row["model"]: row for row in document["rows"]}
    assert len(document["rows"]) == len(rows)
    row = by_model["AFI-MobileNetV2"]
    assert row["architecture"] == "mobilenetv2(base-r16)"
    assert row["params"] == {"printed": 2.25e6, "ours": 2_248_868, "change": 0.0}
    assert row["flops_g"]["printed"] == 2.67
    assert row["flops_g"]["change"] == pytest.approx(row["flops_g"]["ours"] / 2.67 - 1)
    assert by_model["ShuffleNetV2"]["same_network"] is False
    assert "batch of 32" in document["conventions"]["flops_g"]
