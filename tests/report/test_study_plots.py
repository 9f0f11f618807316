from __future__ import annotations

import numpy as np
import pytest
from pandas import DataFrame

from afi_search.report.study_plots import (
    curves_figure,
    hypervolume_figure,
    parallel_figure,
    timeline_figure,
)
from afi_search.study.pareto import front, hypervolume
from afi_search.study.reference import measure_references, reference_point
from tests.report.synthetic_records import searched, study_info

INFO = study_info()
REFERENCES = measure_references(INFO)
REFERENCE = reference_point(REFERENCES, INFO)


def steps(records: DataFrame, over: str) -> list[tuple[float, float]]:
    """The steps of the hypervolume after its start at zero."""
    (history,) = hypervolume_figure(records, REFERENCE, over).data
    return list(zip(history.x, history.y, strict=True))[1:]


def test_each_step_is_the_hypervolume_of_the_trials_so_far() -> None:
    records = searched(30, info=INFO)
    shuffled = records.sample(frac=1, random_state=0)
    whole = (1 - REFERENCE[0]) * REFERENCE[1]
    by_trials, by_hours = steps(shuffled, "trials"), steps(shuffled, "hours")
    for (trials, share), (hours, the_same) in zip(by_trials, by_hours, strict=True):
        so_far = records.head(int(trials))
        assert share == the_same
        assert share == pytest.approx(100 * hypervolume(so_far, REFERENCE) / whole)
        assert hours == pytest.approx(so_far["seconds"].sum() / 3600)
    reached = {trials for trials, _ in by_trials}
    assert reached == {1 + n for n in records.index[records["full"]]} | {len(records)}
    shares = [share for _, share in by_trials]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 100


def test_a_trial_that_has_not_ended_is_no_step() -> None:
    records = searched(6, info=INFO, pruning=False)
    records.loc[5, ["state", "full"]] = ["running", False]
    assert sorted({trials for trials, _ in steps(records, "trials")}) == [1, 2, 3, 4, 5]


def test_every_trial_has_its_curve_and_says_what_is_known_of_it() -> None:
    records = searched(40, info=INFO)
    figure = curves_figure(records, INFO, REFERENCES)
    drawn = {trace.hovertext.split("trial #")[1].split(",")[0]: trace for trace in figure.data}
    best = front(records).index
    for number, row in records.iterrows():
        trace = drawn[str(number)]
        assert list(trace.y) == pytest.approx([100 * accuracy for accuracy in row["curve"]])
        kinds = {"complete": "other trials of full fidelity"}
        expected = "front" if number in best else kinds.get(row["state"], row["state"])
        assert trace.name == trace.legendgroup == expected
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == sorted({trace.name for trace in figure.data})


def test_every_trial_of_full_fidelity_is_a_line_through_its_choices() -> None:
    records = searched(40, info=INFO)
    figure = parallel_figure(records, INFO, REFERENCES)
    full = records[records["full"]]
    assert len(figure.data) == len(full)
    best = [trace for trace in figure.data if trace.name == "front"]
    assert len(best) == len(front(records))
    assert [trace.name for trace in figure.data[-len(best) :]] == ["front"] * len(best)
    top = max(figure.data, key=lambda trace: trace.y[-1])
    assert f"trial #{full['accuracy'].idxmax()}," in top.hovertext
    axes = figure.layout.xaxis.ticktext
    assert all(len(trace.y) == len(axes) and np.isfinite(trace.y).all() for trace in figure.data)


def test_the_timeline_shows_when_each_trial_ran_and_how_it_ended() -> None:
    records = searched(40, info=INFO)
    figure = timeline_figure(records)
    words = {"full fidelity": "complete"}
    for bars in figure.data:
        rows = records.loc[list(bars.y)]
        assert set(rows["state"]) == {words.get(bars.name, bars.name)}
        took = (rows["finished"] - rows["started"]).dt.total_seconds() * 1000
        assert list(bars.x) == pytest.approx(list(took))
    assert sum(len(bars.y) for bars in figure.data) == len(records)
