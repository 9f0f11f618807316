from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame

from afi_search.study import front, hypervolume
from tests.report.synthetic_records import empty, record

levels = st.integers(0, 8).map(lambda eighths: eighths / 8)
costs = st.integers(1, 8)
trials = st.lists(st.tuples(levels, costs, st.booleans()), max_size=14)


def frame(drawn: list[tuple[float, int, bool]]) -> DataFrame:
    """Records of trials with names of their own; few levels, so that ties abound."""
    rows = [
        record(number, accuracy, macs, full=full, state="complete" if full else "pruned")
        for number, (accuracy, macs, full) in enumerate(drawn)
    ]
    return DataFrame(rows, columns=list(empty().columns))


def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    at_least = one[0] >= other[0] and one[1] <= other[1]
    return at_least and one != other


def points(records: DataFrame) -> list[tuple[float, float]]:
    return list(zip(records["accuracy"], records["macs"], strict=True))


@given(trials)
@settings(deadline=None, max_examples=150)
def test_front_is_what_no_full_trial_dominates(drawn: list[tuple[float, int, bool]]) -> None:
    full = [(number, a, m) for number, (a, m, is_full) in enumerate(drawn) if is_full]
    expected = {
        number
        for number, accuracy, macs in full
        if not any(dominates((a, m), (accuracy, macs)) for _, a, m in full)
    }
    assert set(front(frame(drawn))["number"]) == expected


@given(trials)
@settings(deadline=None, max_examples=60)
def test_front_goes_up_in_both_and_keeps_rows_as_they_are(
    drawn: list[tuple[float, int, bool]],
) -> None:
    records = frame(drawn)
    best = front(records)
    assert best["macs"].is_monotonic_increasing
    assert best["accuracy"].is_monotonic_increasing
    pd.testing.assert_frame_equal(best, records.loc[best.index])


@given(trials, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_front_does_not_depend_on_the_order_of_trials(
    drawn: list[tuple[float, int, bool]], shuffler: object
) -> None:
    records = frame(drawn)
    order = list(records.index)
    shuffler.shuffle(order)  # type: ignore[attr-defined]
    assert list(front(records.loc[order])["number"]) == list(front(records)["number"])


@given(st.lists(st.tuples(levels, costs, st.just(True)), min_size=1, max_size=10), st.data())
@settings(deadline=None, max_examples=60)
def test_a_dominated_trial_changes_nothing(
    drawn: list[tuple[float, int, bool]], data: st.DataObject
) -> None:
    accuracy, macs, _ = data.draw(st.sampled_from(drawn))
    worse = (accuracy - 0.01, macs + data.draw(st.integers(0, 3)), True)
    before, after = frame(drawn), frame([*drawn, worse])
    reference = (-1.0, 20.0)
    assert list(front(after)["number"]) == list(front(before)["number"])
    assert hypervolume(after, reference) == hypervolume(before, reference)


@given(trials)
@settings(deadline=None, max_examples=100)
def test_hypervolume_is_the_area_of_the_cells_it_dominates(
    drawn: list[tuple[float, int, bool]],
) -> None:
    reference = (0.25, 7.0)
    cells = [(level / 8, macs) for level in range(3, 9) for macs in range(1, 7)]
    covered = sum(
        any(a >= accuracy and m <= macs for a, m, full in drawn if full) for accuracy, macs in cells
    )
    assert hypervolume(frame(drawn), reference) == pytest.approx(covered / 8)


def test_equal_trials_of_different_architectures_are_all_kept_in_the_order_of_their_numbers() -> (
    None
):
    records = DataFrame([record(7, 0.5, 10), record(3, 0.5, 10), record(5, 0.4, 10)])
    assert list(front(records)["number"]) == [3, 7]


def test_an_architecture_stands_on_the_front_once_with_its_best_seed() -> None:
    again = [
        record(number, accuracy, 10, architecture="resnet32")
        for number, accuracy in enumerate([0.5, 0.6, 0.6])
    ]
    assert list(front(DataFrame(again))["number"]) == [1]


@pytest.mark.parametrize("accuracy", [math.nan, math.inf])
def test_a_trial_without_a_finite_accuracy_is_not_on_the_front(accuracy: float) -> None:
    records = DataFrame([record(0, accuracy, 5), record(1, 0.3, 10)])
    assert list(front(records)["number"]) == [1]


def test_no_trials_give_an_empty_front_with_all_columns() -> None:
    best = front(empty())
    assert best.empty
    assert list(best.columns) == list(empty().columns)
    assert hypervolume(empty(), (0.0, 1.0)) == 0


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="accuracy, macs"):
        front(DataFrame({"full": [True], "architecture": ["resnet32"]}))


def test_the_front_needs_no_drawing_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, afi_search; afi_search.front;"
        "assert not {'plotly', 'matplotlib'} & set(sys.modules), 'drawing library imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
