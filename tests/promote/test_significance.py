from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from afi_search.promote.significance import (
    Point,
    chance_better,
    interval,
    pooled_spread,
    verdicts,
)

ACCURACIES = st.lists(st.floats(0, 1), min_size=2, max_size=5).map(tuple)


def test_clear_differences_are_seen() -> None:
    cheap = Point(10, (0.700, 0.702, 0.701))
    dear = Point(20, (0.750, 0.752, 0.751))
    waste = Point(30, (0.720, 0.722, 0.721))
    alike = Point(40, (0.7505, 0.7525, 0.7515))

    assert verdicts([cheap, dear, waste, alike]) == ["unrivalled", "stands", "beaten", "open"]


def test_the_cheapest_has_no_rival_whatever_it_reaches() -> None:
    assert verdicts([Point(10, (0.1, 0.11)), Point(20, (0.9, 0.91))]) == ["unrivalled", "stands"]


def test_ties_are_called_ties() -> None:
    one, other = Point(10, (0.4, 0.6, 0.5)), Point(10, (0.5, 0.5, 0.5))
    assert verdicts([one, other]) == ["tied", "tied"]
    assert verdicts([one, other, Point(20, (0.5, 0.6, 0.4))]) == ["tied", "tied", "tied"]
    assert verdicts([Point(10, (0.5, 0.5)), Point(20, (0.5, 0.5))]) == ["unrivalled", "tied"]


def test_of_two_that_cost_the_same_one_can_be_beaten() -> None:
    assert verdicts([Point(10, (0.5, 0.51)), Point(10, (0.9, 0.91))]) == ["beaten", "stands"]


def test_one_seed_each_says_nothing_of_the_dearer() -> None:
    assert verdicts([Point(10, (0.5,)), Point(20, (0.9,))]) == ["unrivalled", "open"]
    low, high = interval(Point(10, (0.5,)), pooled_spread([Point(10, (0.5,))]))
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.filterwarnings("ignore:Precision loss")
@settings(deadline=None, max_examples=50)
@given(ACCURACIES, ACCURACIES)
def test_two_architectures_are_compared_as_students_t_test_does(
    one: tuple[float, ...], other: tuple[float, ...]
) -> None:
    points = [Point(1, one), Point(2, other)]
    spread = pooled_spread(points)
    if spread.deviation < 1e-4:
        return
    expected = stats.ttest_ind(one, other, alternative="greater").pvalue
    assert chance_better(points[0], points[1], spread) == pytest.approx(
        expected, rel=1e-6, abs=1e-9
    )


@settings(deadline=None, max_examples=50)
@given(ACCURACIES)
def test_the_interval_of_one_architecture_is_students(accuracies: tuple[float, ...]) -> None:
    point = Point(1, accuracies)
    spread = pooled_spread([point])
    assert spread.deviation == pytest.approx(np.std(accuracies, ddof=1), abs=1e-9)
    if spread.deviation < 1e-4:
        return
    low, high = stats.t.interval(
        0.95, len(accuracies) - 1, np.mean(accuracies), stats.sem(accuracies)
    )
    assert interval(point, spread) == pytest.approx((low, high))


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        points = [Point(1, tuple(random.normal(0.7, 0.01, 3))) for _ in range(4)]
        low, high = interval(points[0], pooled_spread(points))
        hits += low <= 0.7 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_seeds_that_all_reach_the_same_tell_nothing() -> None:
    stuck = [Point(1, (0.5, 0.5)), Point(2, (0.6, 0.6)), Point(3, (0.1, 0.1))]
    assert verdicts(stuck) == ["unrivalled", "open", "open"]
    assert all(math.isnan(bound) for bound in interval(stuck[0], pooled_spread(stuck)))
