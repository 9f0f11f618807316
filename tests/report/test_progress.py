from __future__ import annotations

import pytest

from afi_search.report.progress import hypervolume_over_time
from afi_search.study import hypervolume
from afi_search.study.reference import landmarks, reference_point
from tests.report.synthetic_records import empty, searched, study_info

INFO = study_info()
REFERENCE = reference_point(landmarks(INFO), INFO)


def test_each_step_is_the_hypervolume_of_the_trials_so_far() -> None:
    records = searched(30, info=INFO)
    progress = hypervolume_over_time(records.sample(frac=1, random_state=0), REFERENCE)
    whole = (1 - REFERENCE[0]) * REFERENCE[1]
    for step in progress.to_dict("records"):
        so_far = records.head(step["trials"])
        assert step["share"] == pytest.approx(hypervolume(so_far, REFERENCE) / whole)
        assert step["hours"] == pytest.approx(so_far["seconds"].sum() / 3600)
    assert progress["share"].is_monotonic_increasing
    assert 0 < progress["share"].iloc[-1] < 1


def test_a_trial_that_has_not_ended_is_no_step() -> None:
    records = searched(6, info=INFO, pruning=False)
    records.loc[5, ["state", "full"]] = ["running", False]
    assert list(hypervolume_over_time(records, REFERENCE)["trials"]) == [1, 2, 3, 4, 5]


def test_before_any_trial_there_is_no_step() -> None:
    assert hypervolume_over_time(empty(), REFERENCE).empty
