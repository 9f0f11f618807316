from __future__ import annotations

import pytest
from pandas import DataFrame

from afi_search.report.effort import effort
from tests.report.synthetic_records import empty, record

FULL = 9


def test_epochs_and_time_are_added_up_by_what_became_of_the_trials() -> None:
    records = DataFrame(
        [
            record(0, 0.5, 1, epochs=9, seconds=90.0),
            record(1, 0.5, 1, epochs=9, seconds=45.0),
            record(2, 0.2, 1, state="pruned", full=False, epochs=3, seconds=30.0),
            record(3, 0.1, 1, state="pruned", full=False, epochs=1, seconds=5.0),
            record(4, 0.1, 1, state="failed", full=False, epochs=2, seconds=7.0),
            record(5, 0.1, 1, state="running", full=False, epochs=4, seconds=8.0),
            record(6, 0.1, 1, state="waiting", full=False, epochs=0, seconds=0.0),
        ]
    )
    spent = effort(records, FULL)
    assert spent.epochs == {"full fidelity": 18, "pruned": 4, "failed": 2, "not finished": 4}
    assert spent.seconds == {
        "full fidelity": 135.0,
        "pruned": 35.0,
        "failed": 7.0,
        "not finished": 8.0,
    }
    assert spent.epochs_saved == 6 + 8
    assert spent.seconds_saved == pytest.approx(6 * 10 + 8 * 5)
    assert spent.share_saved == pytest.approx(14 / (28 + 14))


def test_before_any_trial_nothing_was_spent_or_saved() -> None:
    spent = effort(empty(), FULL)
    assert spent.epochs == spent.seconds == {}
    assert (spent.epochs_saved, spent.seconds_saved, spent.share_saved) == (0, 0.0, 0.0)
