from __future__ import annotations

import random

import optuna
import pytest
from pandas import DataFrame

from afi_search.report.importance import FEWEST_TRIALS, importance
from tests.report.synthetic_records import record, searched, study_info


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
    table = importance(ruled_by_stage_3(60))
    assert table["accuracy"].idxmax() == "stage 3 attention"
    assert table.loc["stage 3 attention", "accuracy"] > 0.8


def test_each_kind_sums_to_one_and_the_front_comes_first() -> None:
    table = importance(searched(60, info=study_info()))
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
    table = importance(records)
    assert table.empty
    assert list(table.columns) == ["front", "accuracy"]


def test_optuna_keeps_its_voice_and_says_nothing(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    before = optuna.logging.get_verbosity()
    importance(ruled_by_stage_3(12))
    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr().err == ""
    assert list(recwarn) == []
