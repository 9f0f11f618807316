from __future__ import annotations

import pytest
from pandas import DataFrame
from rich.console import Console

from afi_search.report.table import KEY_LINES, fitting_table, front_key, front_table
from afi_search.report.view import StudyView
from afi_search.study.ledger import OBJECTIVES
from tests.report.synthetic_records import empty, record, study_info


def shown(records: DataFrame, width: int, **facts: object) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(front_table(StudyView(records, study_info(**facts)), width))
    return capture.get()


def test_the_front_is_listed_with_its_conventions() -> None:
    records = DataFrame(
        [
            record(1, 0.712, 69_132_160, architecture="resnet32", params=472_756),
            record(2, 0.706, 55_080_000, architecture="resnet32(base-r4)", params=378_228),
            record(3, 0.6, 80e6, architecture="resnet32(B-r16)"),
        ]
    )
    text = shown(records, 130)
    lines = [line.split() for line in text.splitlines()]
    minus = "\N{MINUS SIGN}"
    assert ["resnet32(base-r4)", "70.6", "55.08", f"{minus}0.6", f"({minus}2.4", "to",
            "+1.2)", f"{minus}20.3", "%", "378.2", "K", "2.00", "9",
            "#2"] in lines  # fmt: skip
    assert "resnet32(B-r16)" not in text
    assert "multiply-accumulates of conv and linear layers and AFI scoring, per image" in " ".join(
        text.split()
    )
    assert ["resnet32", "(plain)", "71.2", "69.13", "472.8", "K", "2.23"] in lines


def test_nothing_is_cut_off_in_a_terminal_of_80_columns() -> None:
    name = "resnet32(base-r16-cbam-shared, B-r16-cbam-shared, base-r16-cbam-shared)"
    text = shown(DataFrame([record(120, 0.712, 1.2e9, architecture=name)]), 80)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    first_column = "".join(line[:22].strip() for line in text.splitlines())
    assert name.replace(" ", "") in first_column.replace(" ", "")
    assert "#120" in text and "1,200" in text


def test_before_any_full_trial_the_table_says_so() -> None:
    assert "no trial has reached full fidelity (9 epochs)" in shown(empty(), 120)


def test_a_narrow_terminal_shows_architectures_accuracy_and_cost_and_names_the_rest() -> None:
    name = "resnet32(base-r16-cbam-shared, B-r16-cbam-shared, base-r16-cbam-shared)"
    text = shown(DataFrame([record(120, 0.712, 69e6, architecture=name)]), 40)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert all(len(line) <= 40 for line in text.splitlines())
    first_column = "".join(line[:22].strip() for line in text.splitlines())
    assert name.replace(" ", "") in first_column.replace(" ", "")
    assert "71.2" in text and "69.00" in text
    assert "a wider terminal adds over plain, vs plain, params, paper, epochs, trial" in " ".join(
        text.split()
    )
    assert "MACs: multiply" in text and "paper G" not in text
    assert "paper G" in shown(DataFrame([record(120, 0.712, 69e6)]), 200)


def test_of_two_columns_under_one_heading_the_one_left_out_is_named_with_its_unit() -> None:
    columns = ["architecture", "test, %", "MACs, M", "seeds", "test, +-"]
    rows = [dict.fromkeys(columns, "resnet20")]
    console = Console(width=44, color_system=None)
    with console.capture() as capture:
        console.print(fitting_table("Confirmed", {}, columns, rows, 44))
    assert "a wider terminal adds seeds, test +-" in " ".join(capture.get().split())


def test_the_cost_of_the_study_stands_beside_the_accuracy() -> None:
    records = DataFrame([record(1, 0.7, 69e6, memory=265_432_100.0)])
    records.attrs[OBJECTIVES] = ["accuracy", "memory"]
    assert "265.4" in shown(records, 40)
    assert "69.00" in shown(records, 100)


@pytest.mark.parametrize("size", [1, KEY_LINES, KEY_LINES + 30])
def test_the_key_lists_the_front_and_says_what_it_leaves_out(size: int) -> None:
    records = DataFrame([record(n, 0.5 + n / 200, 6e7 + n * 1e6) for n in range(size)])
    labels = [f"#{n}" for n in range(0, size, 2)]
    heading, *lines = front_key(StudyView(records, study_info()), labels)
    assert heading[0] == "front"
    assert len(lines) <= KEY_LINES
    listed = [line for line in lines if line[0]]
    if size <= KEY_LINES:
        assert len(listed) == size
    else:
        assert lines[-1][1] == f"and {size - len(listed)} more"
        assert {line[0] for line in listed} <= set(labels)
