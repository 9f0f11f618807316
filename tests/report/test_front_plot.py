from __future__ import annotations

import re

import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame

from afi_search.report.front_plot import PAPER, PLAIN, PRUNED_EARLY, front_figure
from afi_search.report.view import FRONT, OTHERS, StudyView, interval
from afi_search.study.pareto import front
from afi_search.study.reference import measure_references
from tests.report.synthetic_records import empty, record, searched, study_info
from tests.typed import there

INFO = study_info()
Z_95 = 1.959963984540054


def figure_of(*rows: dict[str, object]) -> go.Figure:
    return front_figure(StudyView(DataFrame(list(rows)), INFO))


def points(figure: go.Figure, kind: str) -> go.Scatter | None:
    """The trace of the points of a kind, where there are such."""
    found = [trace for trace in figure.data if (trace.name or "").startswith(kind)]
    assert len(found) < 2
    return found[0] if found else None


def architectures(figure: go.Figure, kind: str) -> set[str]:
    trace = points(figure, kind)
    if trace is None:
        return set()
    texts = (there(re.match("<b>(.*?)</b>", text))[1] for text in trace.hovertext)
    return {text.replace("<br>", " ") for text in texts}


def range_of(figure: go.Figure, trace: go.Scatter) -> tuple[float, float]:
    """The range of the vertical axis on which a trace is drawn."""
    return tuple(figure.layout[trace.yaxis.replace("y", "yaxis")].range)


def stairs(figure: go.Figure) -> go.Scatter | None:
    return next((trace for trace in figure.data if trace.mode == "lines"), None)


def test_every_trial_is_in_one_place_by_how_it_ended() -> None:
    records = searched(40, info=INFO)
    figure = front_figure(StudyView(records, INFO))
    best = set(front(records)["architecture"])
    full = set(records.loc[records["full"], "architecture"])
    pruned = set(records.loc[records["state"] == "pruned", "architecture"])
    assert architectures(figure, FRONT) == best
    assert architectures(figure, PLAIN) == {"resnet32"}
    assert architectures(figure, OTHERS) == full - best - {"resnet32"}
    assert architectures(figure, PRUNED_EARLY) == pruned


def test_pruned_trials_are_placed_by_epoch_and_not_by_accuracy() -> None:
    figure = figure_of(record(0, 0.4, 70e6, state="pruned", full=False, epochs=3))
    trace = points(figure, PRUNED_EARLY)
    assert trace is not None
    assert (list(trace.x), list(trace.y)) == ([70], [3])
    assert "40.0 % validation accuracy after 3 of 9 epochs" in trace.hovertext[0]
    assert points(figure, FRONT) is points(figure, OTHERS) is None


def test_stairs_give_the_best_accuracy_for_at_most_so_many_macs() -> None:
    figure = figure_of(record(0, 0.5, 60e6), record(1, 0.6, 70e6), record(2, 0.55, 80e6))
    line = stairs(figure)
    assert line is not None
    assert line.line.shape == "hv"
    assert list(line.x) == [60, 70, figure.layout.xaxis.range[1]]
    assert list(line.y) == [50, 60, 60]


def test_hover_tells_all_that_is_known_of_a_trial() -> None:
    figure = figure_of(
        record(4, 0.65, 55_080_000, architecture="resnet32(base-r4)", params=378_228, seed=11)
    )
    trace = points(figure, FRONT)
    assert trace is not None
    for part in (
        "resnet32(base-r4)",
        "65.0 % validation accuracy",
        "63.7 to 66.3",
        "55.08 M MACs per image",
        "\N{MINUS SIGN}20.3 % vs plain",
        "378.2 K parameters",
        "2.00 G FLOPs as the paper counts (batch 32)",
        "trial #4",
        "9 epochs",
        "seed 11",
    ):
        assert part in trace.hovertext[0]


def test_without_the_number_of_images_there_is_no_interval() -> None:
    info = study_info(validation_images=None)
    figure = front_figure(StudyView(DataFrame([record(0, 0.65, 70e6)]), info))
    trace = points(figure, FRONT)
    assert trace is not None and not trace.error_y.visible
    assert interval(0.65, None) == (0.65, 0.65)


@given(st.integers(1, 20_000), st.data())
@settings(deadline=None)
def test_ends_of_an_interval_solve_the_score_equation(images: int, data: st.DataObject) -> None:
    """The interval's ends are the shares from which the observed one lies z deviations away."""
    accuracy = data.draw(st.integers(0, images)) / images
    low, high = interval(accuracy, images)
    for end in (low, high):
        distance = (accuracy - end) ** 2
        assert distance == pytest.approx(Z_95**2 * end * (1 - end) / images, abs=1e-9)
    assert 0 <= low <= accuracy <= high <= 1


@pytest.mark.parametrize(("accuracy", "apart"), [(0.15, True), (0.70, False)])
def test_the_papers_points_have_a_panel_of_their_own_where_they_lie_far_off(
    accuracy: float, apart: bool
) -> None:
    figure = figure_of(record(0, accuracy, 60e6), record(1, accuracy + 0.02, 70e6))
    paper, best = points(figure, PAPER), points(figure, FRONT)
    assert paper is not None and best is not None
    assert (paper.yaxis != best.yaxis) is apart
    for trace in (paper, best):
        low, high = range_of(figure, trace)
        assert all(low < y < high for y in trace.y)


def test_everything_drawn_lies_within_the_axes() -> None:
    figure = front_figure(StudyView(searched(60, info=INFO), INFO))
    shown = [trace for trace in figure.data if trace.name]
    assert len(shown) == 5
    left, right = figure.layout.xaxis.range
    for trace in shown:
        low, high = range_of(figure, trace)
        assert all(left < x < right for x in trace.x)
        assert all(low < y < high for y in trace.y)
    best = points(figure, FRONT)
    assert best is not None
    low, high = range_of(figure, best)
    ends = zip(best.y, best.error_y.arrayminus, best.error_y.array, strict=True)
    assert all(low < y - below and y + above < high for y, below, above in ends)


def test_labels_that_would_run_into_one_another_are_left_out_but_never_the_best() -> None:
    crowd = [record(number, 0.6 + number / 1e4, 60e6 + number * 1e4) for number in range(50)]
    best = points(figure_of(*crowd, record(50, 0.5, 40e6)), FRONT)
    assert best is not None
    labelled = [label for label in best.text if label]
    assert "#49" in labelled and "#50" in labelled
    assert len(labelled) < 5


def test_what_a_point_has_over_the_plain_backbone_stands_beside_it_where_there_is_room() -> None:
    plain = record(0, 0.65, 69e6, architecture="resnet32")
    best = points(figure_of(plain, record(1, 0.66, 55e6), record(2, 0.69, 96e6)), FRONT)
    assert best is not None
    gains = ("#1 +1.0<br>(\N{MINUS SIGN}0.9 to +2.9)", "#2 +4.0<br>(+2.2 to +5.8)")
    assert best.text == gains
    near = [record(number, 0.6 + number / 1e3, 55e6 + number * 1e5) for number in range(1, 9)]
    crowded = points(figure_of(plain, *near, record(9, 0.7, 96e6)), FRONT)
    assert crowded is not None
    assert sum("+" in text for text in crowded.text) <= 2
    assert crowded.text[-1].startswith("#9 +5.0")


def test_the_plain_backbone_is_a_line_and_where_it_was_trained_a_point() -> None:
    figure = figure_of(
        record(0, 0.6, 69_132_160, architecture="resnet32"),
        record(1, 0.7, 60e6),
    )
    assert [note.text for note in figure.layout.annotations] == ["plain resnet32"]
    assert figure.layout.shapes[0].x0 == measure_references(INFO).plain["resnet32"].macs / 1e6
    trained = points(figure, PLAIN)
    assert trained is not None
    assert ["trial #0" in text for text in trained.hovertext] == [True]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (empty(), "No trial has been started yet."),
        (
            DataFrame([record(0, 0.2, 7e7, full=False, state="running", epochs=1)]),
            "No trial has reached full fidelity<br>(9 epochs) yet.",
        ),
    ],
)
def test_without_a_full_trial_the_picture_says_so(records: DataFrame, message: str) -> None:
    figure = front_figure(StudyView(records, INFO))
    assert message in [note.text for note in figure.layout.annotations]
    assert points(figure, FRONT) is stairs(figure) is None
    paper = points(figure, PAPER)
    assert paper is not None
    assert figure.layout[paper.yaxis.replace("y", "yaxis")].title.text == "paper, %"


def test_facts_count_the_trials_by_how_they_ended() -> None:
    rows = [record(n, 0.5, 7e7) for n in range(3)]
    rows += [record(9, 0.1, 7e7, state=state, full=False) for state in ("pruned", "failed")]
    told = StudyView(DataFrame(rows), INFO).facts
    assert told[0] == "5 trials: 3 of full fidelity (9 epochs), 1 pruned, 1 failed"
    assert "45,000 training and 5,000 validation images" in told
