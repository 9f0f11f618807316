from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from pandas import DataFrame

from afi_search.report.study_plots import (
    curves_figure,
    hypervolume_figures,
    parallel_figure,
    timeline_figure,
)
from afi_search.report.view import StudyView
from afi_search.study.pareto import front, hypervolume
from afi_search.study.reference import measure_references, reference_point
from tests.report.synthetic_records import searched, study_info

INFO = study_info()
REFERENCES = measure_references(INFO)
REFERENCE = reference_point(REFERENCES, INFO)


def steps(records: DataFrame, over: str) -> list[tuple[float, float]]:
    """The steps of the hypervolume after its start at zero."""
    view = StudyView(records, INFO)
    (history,) = hypervolume_figures(view, REFERENCE)[over].data
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
    records.loc[5, "state"], records.loc[5, "full"] = "running", False
    assert sorted({trials for trials, _ in steps(records, "trials")}) == [1, 2, 3, 4, 5]


def lines(figure: go.Figure, mode: str) -> dict[int, tuple[str, list[float], list[float]]]:
    """Trial -> the name of its trace, and the points of its line in it, a gap taken off."""
    found = {}
    for trace in figure.data:
        if trace.mode == mode:
            ends = np.cumsum(trace.meta["points"])
            xs, ys = np.split(trace.x, ends)[:-1], np.split(trace.y, ends)[:-1]
            for trial, x, y in zip(trace.meta["trials"], xs, ys, strict=True):
                assert np.isnan(x[-1]) and np.isnan(y[-1])
                found[trial] = trace.name, list(x[:-1]), list(y[:-1])
    return found


def test_every_trial_has_its_curve_and_a_mark_where_it_ended() -> None:
    records = searched(40, info=INFO)
    figure = curves_figure(StudyView(records, INFO))
    drawn, marks = lines(figure, "lines"), lines(figure, "lines+markers")
    best = front(records).index
    for row in records.to_dict("records"):
        number = row["number"]
        kind, epochs, accuracies = drawn[number]
        assert epochs == list(range(1, row["epochs"] + 1))
        assert accuracies == pytest.approx([100 * accuracy for accuracy in row["curve"]])
        kinds = {"complete": "other trials of full fidelity"}
        assert kind == ("front" if number in best else kinds.get(row["state"], row["state"]))
        assert marks[number] == (kind, epochs[-1:], accuracies[-1:])
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == sorted({trace.name for trace in figure.data})
    assert all(trace.legendgroup == trace.name for trace in figure.data)


def test_however_many_trials_there_are_there_is_a_handful_of_traces() -> None:
    records = searched(40, info=INFO)
    more = pd.concat([records] * 10, ignore_index=True)
    for view in (StudyView(records, INFO), StudyView(more.assign(number=more.index), INFO)):
        assert len(curves_figure(view).data) == 8
        assert len(parallel_figure(view).data) == 5


def test_every_trial_of_full_fidelity_is_a_line_through_its_choices() -> None:
    records = searched(40, info=INFO)
    figure = parallel_figure(StudyView(records, INFO))
    drawn, full = lines(figure, "lines"), records[records["full"]]
    assert sorted(drawn) == sorted(full["number"])
    best = [trial for trial, (kind, _, _) in drawn.items() if kind == "front"]
    assert sorted(best) == sorted(front(records)["number"])
    assert figure.data[-1].name == "front"
    top = max(drawn, key=lambda trial: drawn[trial][2][-1])
    assert top == full["accuracy"].idxmax()
    axes = figure.layout.xaxis.ticktext
    assert all(len(ys) == len(axes) and np.isfinite(ys).all() for _, _, ys in drawn.values())


def test_the_timeline_shows_when_each_trial_ran_and_how_it_ended() -> None:
    records = searched(40, info=INFO)
    figure = timeline_figure(StudyView(records, INFO))
    words = {"full fidelity": "complete"}
    for bars in figure.data:
        rows = records.loc[list(bars.y)]
        assert set(rows["state"]) == {words.get(bars.name, bars.name)}
        took = rows["finished"].sub(rows["started"]).dt.total_seconds()
        assert list(bars.x / 1000) == pytest.approx(list(took), abs=1e-3)
    assert sum(len(bars.y) for bars in figure.data) == len(records)
