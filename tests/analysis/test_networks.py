from __future__ import annotations

import pandas as pd
import pytest

from afi_search.analysis.networks import choose
from afi_search.errors import UserError


def trials(*rows: tuple[str, int, float]) -> pd.DataFrame:
    """Records: architecture, epochs, accuracy; the number is the place."""
    return pd.DataFrame(
        [
            {
                "number": number,
                "architecture": text,
                "backbone": text.partition("(")[0],
                "epochs": epochs,
                "accuracy": accuracy,
            }
            for number, (text, epochs, accuracy) in enumerate(rows)
        ],
        columns=["number", "architecture", "backbone", "epochs", "accuracy"],
    )


STUDY = trials(
    ("resnet20(base-r4)", 2, 0.9),
    ("resnet20(B-r4)", 9, 0.5),
    ("resnet20", 9, 0.8),
    ("resnet20(off, B-r4, off)", 9, 0.6),
    ("resnet20(B-r4)", 9, 0.55),
)


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ([], [2, 3]),
        (["0"], [2, 0]),
        (["resnet20( B-r4 )"], [2, 4]),
        (["2"], [2]),
        (["1", "3"], [2, 1, 3]),
        (["3", "resnet20"], [2, 3]),
    ],
)
def test_the_plain_backbone_comes_first_and_then_what_is_asked_for(asked, chosen):
    assert choose(STUDY, asked, "study") == chosen


def test_without_a_plain_backbone_there_is_only_what_is_asked_for():
    assert choose(STUDY.drop(index=2), ["1"], "study") == [1]


def test_of_plain_trials_alone_the_best_is_taken():
    assert choose(trials(("resnet20", 3, 0.1), ("resnet32", 3, 0.2)), [], "study") == [1]


def test_in_a_study_of_several_backbones_the_one_asked_for_counts():
    study = trials(("resnet20", 9, 0.1), ("resnet32", 9, 0.1), ("resnet20(B-r4)", 9, 0.2))
    assert choose(study, ["2"], "study") == [0, 2]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["7"], r"study: there is no trial 7 that has been trained; there are trials 0, 1, 2"),
        (["resnet20(B-r16)"], r"study: no trial of resnet20\(B-r16\) has been trained"),
        (["resnet20(B-r17"], "resnet20"),
        (["0", "1", "3"], "too many to compare; name one or two, the plain resnet20 is added"),
    ],
)
def test_what_cannot_be_compared_is_told(asked, said):
    with pytest.raises(UserError, match=said):
        choose(STUDY, asked, "study")


def test_trials_of_two_backbones_have_no_common_blocks():
    study = trials(("resnet20(B-r4)", 9, 0.1), ("resnet32(B-r4)", 9, 0.1))
    with pytest.raises(UserError, match=r"several backbones \(resnet20, resnet32\)"):
        choose(study, ["0", "1"], "study")


def test_a_study_without_a_trained_trial_is_told():
    with pytest.raises(UserError, match="study: no trial has been trained yet"):
        choose(trials(), [], "study")
