from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from afi_search.cost import SpaceCosts
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.space.schema import Search
from benchmarks.contenders import RayTune, ours
from benchmarks.curves import CurveTable, generated_table, recorded_table
from benchmarks.simulator import play

EPOCHS = 9


@cache
def small() -> tuple[Space, SpaceCosts]:
    """A space of 5 ** 3 architectures."""
    axes = {"width": ["off", "base", "B"], "ratio": [4, 16]}
    file = SpaceFile.model_validate(
        {"backbone": "resnet32", "stages": {"all": axes}, "recipe": {"epochs": EPOCHS}}
    )
    space = Space(file)
    return space, SpaceCosts(space, num_classes=100, image_size=32)


def table(confusion: float = 1.0) -> CurveTable:
    return generated_table(*small(), EPOCHS, confusion)


def search_settings(seed: int = 0) -> Search:
    return Search.model_validate(
        {
            "trials": 10**6,
            "seed": seed,
            "baselines": False,
            "pruner": {"name": "mo-asha", "grace_period": 1, "min_trials": 4},
        }
    )


def test_the_same_seed_plays_the_same_search_and_another_does_not() -> None:
    plays = [play(ours(*small(), search_settings(seed)), table(), budget=60) for seed in (0, 0, 1)]

    assert plays[0] == plays[1]
    assert plays[0].finished != plays[2].finished


def test_the_clock_runs_forward_and_no_more_than_the_budget_is_spent() -> None:
    played = play(ours(*small(), search_settings()), table(), budget=60, workers=3)

    assert played.spent == 60
    assert played.distinct == played.trials
    assert [t.clock for t in played.finished] == sorted(t.clock for t in played.finished)
    assert all(t.spent <= 60 for t in played.finished)


def test_a_whole_space_without_pruning_costs_all_its_epochs() -> None:
    space, costs = small()
    search = Search(trials=10**6, sampler="random", baselines=False)
    played = play(ours(space, costs, search), table(), budget=10**6)

    assert played.trials == played.distinct == len(played.finished) == space.size
    assert played.spent == space.size * EPOCHS


def test_ray_tune_stops_the_worst_with_its_own_scheduler() -> None:
    space, costs = small()
    played = play(RayTune(space, costs, 0, epochs=EPOCHS, grace=1), table(), budget=90)

    assert played.spent == 90
    assert 0 < len(played.finished) < played.trials


def test_generated_accuracies_agree_with_the_paper_but_for_what_is_unexplained() -> None:
    """The mean over what a fixed random part of 0.3 points blurs."""
    generated = table()
    known = {
        "resnet32": 71.16,
        "resnet32(base-r4, off, off)": 71.38,
        "resnet32(off, base-r4, off)": 70.63,
        "resnet32(off, off, base-r4)": 70.75,
        "resnet32(base-r4)": 71.09,
        "resnet32(B-r16)": 72.57,
    }
    rows = [generated.row(Architecture.parse(text)) for text in known]
    errors = 100 * generated.final[rows] - list(known.values())

    assert np.abs(errors).max() < 4 * 0.3
    assert np.abs(errors.mean()) < 0.3


def test_confusion_makes_early_epochs_tell_less() -> None:
    agreement = [table(confusion).rank_agreement(2) for confusion in (0.0, 2.0, 8.0)]

    assert agreement == sorted(agreement, reverse=True)
    assert agreement[0] > agreement[2] + 0.1
    assert table(0.0).rank_agreement(EPOCHS) > agreement[0]


def test_one_recorded_seed_is_the_trial_and_the_others_value_it(tmp_path: Path) -> None:
    rows = [
        ("resnet32", True, 69_478_400, 4.0, 2, "[0.1, 0.2]"),
        ("resnet32", True, 69_478_400, 6.0, 2, "[0.3, 0.4]"),
        ("resnet32(base-r4)", True, 54_000_000, 2.0, 2, "[0.2, 0.5]"),
        ("resnet32(B-r16)", False, 97_000_000, 1.0, 1, "[0.9]"),
    ]
    columns = ["architecture", "full", "macs", "seconds", "epochs", "curve"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "trials.csv", index=False)
    recorded = recorded_table(tmp_path / "trials.csv")

    assert [a.text for a in recorded.architectures] == ["resnet32", "resnet32(base-r4)"]
    drawn = {seed: recorded.curve(0, seed) for seed in range(20)}
    assert {tuple(curve) for curve in drawn.values()} == {(0.1, 0.2), (0.3, 0.4)}
    for seed, curve in drawn.items():
        assert recorded.worth(0, seed) == pytest.approx(0.6 - curve[-1])
    assert recorded.curve(1, seed=6) == pytest.approx([0.2, 0.5])
    assert recorded.worth(1, seed=6) == pytest.approx(0.5)
    assert recorded.final == pytest.approx([0.3, 0.5])
    assert recorded.seconds == pytest.approx([2.5, 1.0])


def test_a_record_without_a_full_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("architecture,full,macs,seconds,epochs,curve\nresnet32,False,1,1,1,[0.1]\n")

    with pytest.raises(ValueError, match="trained to the end"):
        recorded_table(path)
