from __future__ import annotations

import pytest
from pandas import DataFrame

from afi_search.report.view import FrontView, front_view
from afi_search.study.pareto import front
from afi_search.study.reference import landmarks
from tests.report.synthetic_records import empty, record, searched, study_info

INFO = study_info()
MARKS = landmarks(INFO)


def view_of(*rows: dict[str, object]) -> FrontView:
    return front_view(DataFrame(list(rows)), INFO, MARKS)


def test_every_trial_is_in_one_place_by_how_it_ended() -> None:
    records = searched(40, info=INFO)
    view = front_view(records, INFO, MARKS)
    best = set(front(records)["architecture"])
    full = set(records.loc[records["full"], "architecture"])
    pruned = set(records.loc[records["state"] == "pruned", "architecture"])
    assert {point.architecture for point in view.front} == best
    assert {point.architecture for point in view.plain_trials} == {"resnet32"}
    assert {point.architecture for point in view.others} == full - best - {"resnet32"}
    assert {point.architecture for point in view.pruned} == pruned


def test_pruned_trials_are_placed_by_epoch_and_not_by_accuracy() -> None:
    view = view_of(record(0, 0.4, 70e6, state="pruned", full=False, epochs=3))
    (point,) = view.pruned
    assert (point.cost, point.y) == (70e6, 3)
    assert any("40.0 % validation accuracy after 3 of 9 epochs" in line for line in point.lines)
    assert view.front == view.others == ()


def test_stairs_give_the_best_accuracy_for_at_most_so_many_macs() -> None:
    view = view_of(record(0, 0.5, 60e6), record(1, 0.6, 70e6), record(2, 0.55, 80e6))
    assert view.stairs == (
        (60e6, 50.0),
        (70e6, 50.0),
        (70e6, 60.0),
        (view.cost_range[1], 60.0),
    )


def test_hover_tells_all_that_is_known_of_a_trial() -> None:
    view = view_of(
        record(4, 0.65, 55_080_000, architecture="resnet32(base-r4)", params=378_228, seed=11)
    )
    text = "\n".join(view.front[0].lines)
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
        assert part in text


def test_without_the_number_of_images_there_is_no_interval() -> None:
    info = study_info(validation_images=None)
    view = front_view(DataFrame([record(0, 0.65, 70e6)]), info, landmarks(info))
    assert not view.intervals
    assert (view.front[0].low, view.front[0].high) == (65.0, 65.0)


@pytest.mark.parametrize(("accuracy", "apart"), [(0.15, True), (0.70, False)])
def test_the_papers_points_have_a_panel_of_their_own_where_they_lie_far_off(
    accuracy: float, apart: bool
) -> None:
    view = view_of(record(0, accuracy, 60e6), record(1, accuracy + 0.02, 70e6))
    assert view.paper_apart is apart
    shown = view.paper_range if apart else view.accuracy_range
    assert all(shown[0] < point.y < shown[1] for point in view.paper)
    assert all(view.accuracy_range[0] < point.y < view.accuracy_range[1] for point in view.front)


def test_everything_drawn_lies_within_the_axes() -> None:
    view = front_view(searched(60, info=INFO), INFO, MARKS)
    shown = [*view.front, *view.others, *view.pruned, *view.paper]
    assert all(view.cost_range[0] < point.cost < view.cost_range[1] for point in shown)
    low, high = view.accuracy_range
    assert all(low < point.y < high for point in (*view.front, *view.others))
    assert all(low < point.low and point.high < high for point in view.front)


def test_labels_that_would_run_into_one_another_are_left_out_but_never_the_best() -> None:
    crowd = [record(number, 0.6 + number / 1e4, 60e6 + number * 1e4) for number in range(50)]
    view = view_of(*crowd, record(50, 0.5, 40e6))
    labelled = [point.label for point in view.front if point.labelled]
    assert "#49" in labelled and "#50" in labelled
    assert len(labelled) < 5


def test_the_plain_backbone_is_a_line_and_where_it_was_trained_a_point() -> None:
    view = view_of(
        record(0, 0.6, 69_132_160, architecture="resnet32"),
        record(1, 0.7, 60e6),
    )
    assert [line.label for line in view.plain] == ["plain resnet32"]
    assert view.plain[0].cost == MARKS.plain["resnet32"].macs
    assert [point.label for point in view.plain_trials] == ["#0"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (empty(), "No trial has been started yet."),
        (
            DataFrame([record(0, 0.2, 7e7, full=False, state="running", epochs=1)]),
            "No trial has reached full fidelity\n(9 epochs) yet.",
        ),
    ],
)
def test_without_a_full_trial_the_picture_says_so(records: DataFrame, message: str) -> None:
    view = front_view(records, INFO, MARKS)
    assert view.message == message
    assert view.front == view.stairs == ()
    assert view.paper_apart


def test_facts_count_the_trials_by_how_they_ended() -> None:
    rows = [record(n, 0.5, 7e7) for n in range(3)]
    rows += [record(9, 0.1, 7e7, state=state, full=False) for state in ("pruned", "failed")]
    facts = view_of(*rows).facts
    assert facts[0] == "5 trials: 3 of full fidelity (9 epochs), 1 pruned, 1 failed"
    assert "45,000 training and 5,000 validation images" in facts
