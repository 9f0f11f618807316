from __future__ import annotations

import itertools
import random
from typing import Any

import optuna
import pytest
from pandas import DataFrame

from afi_search.report.findings import (
    FEWEST_TRIALS,
    as_optuna,
    choice_table,
    choices_of,
    effort,
    importance,
    importance_intervals,
    levels_of,
    stage_effects,
)
from afi_search.report.view import StudyView
from afi_search.space.architecture import Architecture
from tests.report.synthetic_records import empty, record, searched, study_info

TRUE = {
    (1, "base"): (-0.01, -5e6),
    (1, "B"): (0.0, 9e6),
    (2, "base"): (0.005, -4e6),
    (2, "B"): (0.02, 8e6),
    (3, "base"): (0.03, -3e6),
    (3, "B"): (0.04, 7e6),
}
WIDTHS = ("off", "base-r4", "B-r16")


def trials(noise: float = 0.0, widths: tuple[str, ...] = WIDTHS) -> list[dict[str, object]]:
    """All combinations of widths, with accuracies that add up from TRUE."""
    draw = random.Random(1)
    rows = []
    for number, choice in enumerate(itertools.product(widths, repeat=3)):
        effects = [
            TRUE[stage, width.partition("-")[0]]
            for stage, width in enumerate(choice, start=1)
            if width != "off"
        ]
        rows.append(
            record(
                number,
                0.6 + sum(gain for gain, _ in effects) + draw.gauss(0, noise),
                70e6 + sum(macs for _, macs in effects),
                architecture=f"resnet32({', '.join(choice)})",
            )
        )
    return rows


def effects_of(records: DataFrame) -> list[Any]:
    return list(stage_effects(StudyView(records, study_info())).itertuples(index=False))


def test_effects_that_add_up_are_found_exactly() -> None:
    found = effects_of(DataFrame(trials()))
    assert [(effect.stage, effect.width) for effect in found] == list(TRUE)
    for effect in found:
        accuracy, macs = TRUE[effect.stage, effect.width]
        assert effect.accuracy == pytest.approx(accuracy, abs=1e-9)
        assert effect.macs == pytest.approx(macs)
        assert effect.error == pytest.approx(0, abs=1e-9)
        assert effect.trials == 9


def test_they_are_found_where_stages_are_mixed_unevenly() -> None:
    """A mean over the trials with AFI in a stage would be misled by what the other stages have."""
    rows = trials()
    uneven = [row for n, row in enumerate(rows) if n % 3 != 0 or n < 9]
    for effect in effects_of(DataFrame(uneven)):
        assert effect.accuracy == pytest.approx(TRUE[effect.stage, effect.width][0], abs=1e-9)


def test_noise_stays_within_the_interval_it_widens() -> None:
    found = effects_of(DataFrame(trials(noise=0.01)))
    assert all(0.004 < effect.error < 0.02 for effect in found)
    misses = [
        abs(effect.accuracy - TRUE[effect.stage, effect.width][0]) > effect.error
        for effect in found
    ]
    assert sum(misses) <= 1


def test_pruned_trials_have_no_say() -> None:
    lower = [row | {"accuracy": 0.0, "state": "pruned", "full": False} for row in trials()]
    both = DataFrame([*trials(), *lower])
    assert effects_of(both) == effects_of(DataFrame(trials()))


def test_a_stage_that_was_never_off_is_left_out() -> None:
    rows = [row for row in trials() if not str(row["architecture"]).startswith("resnet32(off,")]
    found = effects_of(DataFrame(rows))
    assert {effect.stage for effect in found} == {2, 3}
    for effect in found:
        assert effect.accuracy == pytest.approx(TRUE[effect.stage, effect.width][0], abs=1e-9)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(empty(), id="no trials"),
        pytest.param(DataFrame(trials()[:8]), id="few trials"),
        pytest.param(
            DataFrame(
                [
                    record(n, 0.5 + n / 100, 7e7, architecture=name)
                    for n, name in enumerate(["resnet32", "resnet32(base-r4)"] * 10)
                ]
            ),
            id="stages always alike",
        ),
    ],
)
def test_where_stages_cannot_be_told_apart_nothing_is_said(records: DataFrame) -> None:
    assert effects_of(records) == []


def table_of(*architectures: str) -> DataFrame:
    return choice_table(
        DataFrame({"architecture": list(architectures)}, index=range(5, 5 + len(architectures)))
    )


def test_a_stage_without_afi_has_no_other_choice() -> None:
    assert choices_of(Architecture.parse("resnet32(base-r4, off, B-r16-se-shared)")) == {
        "stage 1 width": "base",
        "stage 1 ratio": "4",
        "stage 1 attention": "none",
        "stage 1 scorer": "block",
        "stage 2 width": "off",
        "stage 3 width": "B",
        "stage 3 ratio": "16",
        "stage 3 attention": "se",
        "stage 3 scorer": "stage",
    }


def test_only_what_differs_is_in_the_table_in_the_order_of_the_stages() -> None:
    table = table_of("resnet32(base-r4, off, B-r16)", "resnet32(base-r8, off, B-r16)", "resnet32")
    assert list(table.columns) == [
        "stage 1 width",
        "stage 1 ratio",
        "stage 1 attention",
        "stage 1 scorer",
        "stage 3 width",
        "stage 3 ratio",
        "stage 3 attention",
        "stage 3 scorer",
    ]
    assert list(table.index) == [5, 6, 7]
    assert table["stage 1 ratio"].isna().tolist() == [False, False, True]


def test_trials_of_one_architecture_have_no_choices_to_compare() -> None:
    assert table_of("resnet32", "resnet32").columns.empty


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("stage 1 width", ["off", "B", "base"]),
        ("stage 1 ratio", ["2", "4", "8"]),
        ("stage 1 attention", ["none", "eca", "se"]),
    ],
)
def test_levels_are_in_an_order_that_reads_well(name: str, levels: list[str]) -> None:
    table = table_of(
        "resnet32(base-r8, off, off)",
        "resnet32(B-r2-se, off, off)",
        "resnet32(B-r4-eca, off, off)",
        "resnet32",
    )
    assert levels_of(table, name) == levels


def ruled_by_stage_3(trials: int) -> DataFrame:
    """Trials whose accuracy depends on the attention of stage 3 alone, at equal cost."""
    draw = random.Random(3)
    rows = []
    for number in range(trials):
        attention = draw.choice(["", "-se", "-eca"])
        stages = [f"base-r{draw.choice([2, 4])}" for _ in range(2)]
        name = f"resnet32({', '.join(stages)}, base-r4{attention})"
        accuracy = 0.5 + (0.1 if attention == "-se" else 0) + draw.gauss(0, 0.001)
        rows.append(record(number, accuracy, 7e7 + draw.randrange(1000), architecture=name))
    return DataFrame(rows)


def test_the_choice_that_decides_is_the_most_important() -> None:
    table = importance(as_optuna(StudyView(ruled_by_stage_3(60), study_info())))
    assert table["accuracy"].idxmax() == "stage 3 attention"
    assert table["accuracy"]["stage 3 attention"] > 0.8


def test_each_kind_sums_to_one_and_the_front_comes_first() -> None:
    table = importance(as_optuna(StudyView(searched(60, info=study_info()), study_info())))
    assert len(table) == 12
    assert table.sum().to_dict() == pytest.approx({"front": 1, "accuracy": 1})
    assert table["front"].is_monotonic_decreasing


@pytest.mark.parametrize(
    "records",
    [
        pytest.param(ruled_by_stage_3(FEWEST_TRIALS - 1), id="few trials"),
        pytest.param(
            DataFrame([record(n, 0.5, 7e7, architecture="resnet32") for n in range(20)]),
            id="nothing to choose",
        ),
    ],
)
def test_with_nothing_to_tell_the_table_is_empty(records: DataFrame) -> None:
    table = importance(as_optuna(StudyView(records, study_info())))
    assert table.empty
    assert list(table.columns) == ["front", "accuracy"]


def test_optuna_keeps_its_voice_and_says_nothing(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    before = optuna.logging.get_verbosity()
    importance(as_optuna(StudyView(ruled_by_stage_3(12), study_info())))
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr().err == ""
    assert list(recwarn) == []


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
    spent = effort(StudyView(records, study_info()))
    assert spent["epochs"].to_dict() == {
        "full fidelity": 18,
        "pruned": 4,
        "failed": 2,
        "not finished": 4,
        "saved": 6 + 8,
    }
    assert spent["seconds"].to_dict() == {
        "full fidelity": 135.0,
        "pruned": 35.0,
        "failed": 7.0,
        "not finished": 8.0,
        "saved": pytest.approx(6 * 10 + 8 * 5),
    }


def test_before_any_trial_nothing_was_spent_or_saved() -> None:
    spent = effort(StudyView(empty(), study_info()))
    assert spent.to_dict("index") == {"saved": {"epochs": 0, "seconds": 0.0}}


def test_importance_has_intervals_that_hold_it_and_are_narrower_with_more_trials() -> None:
    widths = []
    for trials in (30, 200):
        study = as_optuna(StudyView(ruled_by_stage_3(trials), study_info()))
        table = importance(study)
        low, high = importance_intervals(study, table)
        assert ((low <= table) & (table <= high)).all(axis=None)
        widths.append((high - low)["accuracy"].mean())
    assert widths[1] < widths[0]
    assert low["accuracy"].max() > high["accuracy"].median(), "the one that rules is told apart"
