from __future__ import annotations

import pytest
from pandas import DataFrame

from afi_search.report.choices import choice_table, choices_of, levels_of
from afi_search.space.architecture import Architecture


def table_of(*architectures: str) -> DataFrame:
    return choice_table(
        DataFrame({"architecture": list(architectures)}, index=range(5, 5 + len(architectures)))
    )


def test_a_stage_without_afi_has_no_other_choice() -> None:
    assert choices_of(Architecture.parse("resnet32(base-r4, off, B-r16-se-shared)")) == {
        "stage 1 width": "base",
        "stage 1 ratio": "4",
        "stage 1 attention": "none",
        "stage 1 scorer": "block",
        "stage 2 width": "off",
        "stage 3 width": "B",
        "stage 3 ratio": "16",
        "stage 3 attention": "se",
        "stage 3 scorer": "stage",
    }


def test_only_what_differs_is_in_the_table_in_the_order_of_the_stages() -> None:
    table = table_of("resnet32(base-r4, off, B-r16)", "resnet32(base-r8, off, B-r16)", "resnet32")
    assert list(table.columns) == [
        "stage 1 width",
        "stage 1 ratio",
        "stage 1 attention",
        "stage 1 scorer",
        "stage 3 width",
        "stage 3 ratio",
        "stage 3 attention",
        "stage 3 scorer",
    ]
    assert list(table.index) == [5, 6, 7]
    assert table["stage 1 ratio"].isna().tolist() == [False, False, True]


def test_trials_of_one_architecture_have_no_choices_to_compare() -> None:
    assert table_of("resnet32", "resnet32").columns.empty


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("stage 1 width", ["off", "B", "base"]),
        ("stage 1 ratio", ["2", "4", "8"]),
        ("stage 1 attention", ["none", "eca", "se"]),
    ],
)
def test_levels_are_in_an_order_that_reads_well(name: str, levels: list[str]) -> None:
    table = table_of(
        "resnet32(base-r8, off, off)",
        "resnet32(B-r2-se, off, off)",
        "resnet32(B-r4-eca, off, off)",
        "resnet32",
    )
    assert levels_of(table, name) == levels
