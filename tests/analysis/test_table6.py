from __future__ import annotations

import csv
import io

import pytest
import torch
from pandas import DataFrame
from rich.console import Console

from afi_search.analysis.memory import MIB, Memory, as_csv, memory_table, paper_table6, rich_table
from afi_search.space import Architecture

NETWORKS = [Architecture.parse("resnet50"), Architecture.parse("resnet50(base-r4)")]
OURS = [Memory(400 * MIB, 200 * MIB, 300 * MIB), Memory(300 * MIB, 100 * MIB, 150 * MIB)]
PAPER = [(7447, 3827), (7001, 2671)]
TABLE = memory_table("Table 6", NETWORKS, OURS, "by hand", PAPER)


def printed(table: DataFrame) -> list[list[str]]:
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(rich_table(table))
    return [line.split() for line in capture.get().splitlines()]


def test_ours_stands_beside_the_papers_with_the_ratios_of_both():
    lines = printed(TABLE)
    assert ["resnet50", "7,447", "400", "3,827", "200", "300"] in lines
    assert ["resnet50(base-r4)", "7,001", "300", "2,671", "100", "150"] in lines
    assert ["over", "resnet50", "0.940", "0.750", "0.698", "0.500", "0.500"] in lines
    assert ["ours:", "by", "hand"] in lines


def test_without_figures_of_the_paper_only_ours_are_shown():
    lines = printed(memory_table("", NETWORKS, OURS, ""))
    assert ["resnet50(base-r4)", "300", "100", "150"] in lines


def test_the_csv_holds_every_row_with_its_ratios():
    first, second = csv.DictReader(io.StringIO(as_csv([TABLE])))
    assert second["architecture"] == "resnet50(base-r4)"
    assert (second["paper_training_mib"], second["training_mib"]) == ("7001", "300.0")
    assert (second["training_ratio"], second["testing_ratio"]) == ("0.7500", "0.5000")
    assert first["training_ratio"] == "1.0000"
    assert first["measured"] == "by hand"
    (own, _) = csv.DictReader(io.StringIO(as_csv([memory_table("", NETWORKS, OURS, "")])))
    assert own["paper_training_mib"] == ""


def test_the_papers_rows_are_measured_here():
    table = paper_table6(torch.device("cpu"))
    assert list(table["architecture"]) == ["resnet50", "resnet50(base-r4)"]
    assert list(table["paper_training_mib"]) == [7447, 7001]
    assert list(table["paper_testing_mib"]) == [3827, 2671]
    assert 0.97 < table["training_ratio"][1] < 0.985
    assert table["training_mib"][0] == pytest.approx(5495, abs=1)
