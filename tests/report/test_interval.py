from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.report.interval import Z_95, wilson


@given(st.integers(1, 20_000), st.floats(0, 1))
@settings(deadline=None)
def test_ends_solve_the_score_equation(images: int, accuracy: float) -> None:
    """The interval's ends are the shares from which the observed one lies z deviations away."""
    for end in wilson(accuracy, images):
        distance = (accuracy - end) ** 2
        assert distance == pytest.approx(Z_95**2 * end * (1 - end) / images, abs=1e-9)


@given(st.integers(1, 20_000), st.floats(0, 1))
@settings(deadline=None)
def test_it_holds_the_accuracy_and_stays_within_0_and_1(images: int, accuracy: float) -> None:
    low, high = wilson(accuracy, images)
    assert -1e-12 <= low <= accuracy + 1e-12
    assert accuracy - 1e-12 <= high <= 1 + 1e-12
