from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from afi_search.space import Space
from afi_search.study import Ledger
from afi_search.study.ledger import PREDICTION
from tests.search.studies import conductor_costs, conductor_for, play, space_file


@pytest.mark.parametrize(
    "sampler", ["known-cost", "tpe", "tpe-multivariate", "nsga2", "gp", "random", "grid"]
)
def test_a_small_space_is_tried_whole_once_and_then_the_study_ends(
    tmp_path: Path, sampler: str
) -> None:
    stages = {"all": {"width": ["off", "base"], "ratio": [4], "scorer": ["block", "stage"]}}
    file = space_file(stages=stages, search={"sampler": sampler, "trials": 1000})
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor, workers=4)
    tried = ledger.records()["architecture"]

    assert sorted(tried) == sorted(str(a) for a in Space(file).architectures())


def test_what_is_listed_first_comes_first_and_is_no_duplicate_later(tmp_path: Path) -> None:
    first = ["resnet20", "resnet20(B-r16)", "resnet20(base-r4)"]
    ledger, conductor = conductor_for(space_file(search={"first": first}), tmp_path)
    play(conductor)
    records = ledger.records()

    assert list(records["architecture"][:3]) == first
    assert list(records["origin"][:3]) == ["first"] * 3
    assert records["architecture"].is_unique


def test_baselines_come_first_of_all_where_they_keep_the_constraints(tmp_path: Path) -> None:
    search = {"baselines": True, "first": ["resnet20(off, off, B-r4)", "resnet20"]}
    ledger, conductor = conductor_for(space_file(search=search), tmp_path / "free")
    play(conductor)

    assert list(ledger.records()["architecture"][:4]) == [
        "resnet20",
        "resnet20(base-r4)",
        "resnet20(B-r16)",
        "resnet20(off, off, B-r4)",
    ]
    limited = space_file(constraints={"macs": "45.6M"}, search=search)
    ledger, conductor = conductor_for(limited, tmp_path / "limited")
    play(conductor)
    assert "resnet20(B-r16)" not in set(ledger.records()["architecture"])


def test_nothing_dearer_than_the_constraints_is_tried(tmp_path: Path) -> None:
    file = space_file(constraints={"macs": "38M", "params": 300_000}, search={"trials": 500})
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor, workers=2)
    records = ledger.records()

    assert 0 < len(records) < 125
    assert (records["macs"] <= 38_000_000).all()
    assert (records["params"] <= 300_000).all()


def test_the_known_cost_sampler_names_nothing_that_is_infeasible(tmp_path: Path) -> None:
    constraints = {"macs": "38M", "params": 300_000}
    file = space_file(constraints=constraints, search={"sampler": "known-cost", "trials": 500})
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor, workers=3)

    assert len(ledger.records()) == conductor_costs(file).feasible
    assert not ledger.rejected()
    assert set(ledger.records()["origin"]) == {"known-cost"}


@pytest.mark.parametrize("objectives", [["accuracy"], ["macs", "accuracy"]])
def test_the_known_cost_sampler_learns_the_accuracy_wherever_it_stands(
    tmp_path: Path, objectives: list[str]
) -> None:
    search = {"sampler": "known-cost", "trials": 30, "pruner": "none"}
    file = space_file(objectives=objectives, search=search)
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)
    for trial in ledger.trials()[10:]:
        mean, deviation = trial.system_attrs[PREDICTION]

        assert 0.2 < mean < 1 and 0 < deviation < 0.5


def test_a_driver_that_goes_on_proposes_what_the_first_would_have(tmp_path: Path) -> None:
    tried: list[Any] = []
    for stops in ((), (7, 16)):
        folder = tmp_path / str(len(stops))
        for trials in (*stops, 24):
            file = space_file(search={"sampler": "known-cost", "trials": trials})
            ledger, conductor = conductor_for(file, folder)
            play(conductor)
        tried.append(list(ledger.records()["architecture"]))

    assert tried[0] == tried[1]


def test_a_plain_list_is_searched_by_known_cost_too(tmp_path: Path) -> None:
    architectures = ["resnet20", "resnet32", "resnet20(B-r16)", "resnet32(base-r4)"] + [
        f"resnet44(off, off, base-r{ratio})" for ratio in (1, 2, 4, 8, 16)
    ]
    file = space_file(
        backbone=None, stages={}, architectures=architectures, search={"sampler": "known-cost"}
    )
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)

    assert sorted(ledger.records()["architecture"]) == sorted(architectures)


def test_what_is_infeasible_is_recorded_once_and_is_no_trial(tmp_path: Path) -> None:
    limit = 38_000_000
    search = {"trials": 40, "baselines": True, "sampler": "random"}
    file = space_file(constraints={"macs": limit}, search=search)
    ledger, conductor = conductor_for(file, tmp_path)
    for _ in range(20):
        assert conductor.next() is not None
    conductor = conductor_for(file, tmp_path)[1]
    play(conductor)

    rejected = Ledger.open(tmp_path).rejected()
    assert {"resnet20", "resnet20(B-r16)"} < set(rejected)
    assert all(costs["macs"] > limit for costs in rejected.values())
    assert not set(rejected) & set(ledger.records()["architecture"])
    assert len(ledger.records()) == min(40, conductor_costs(file).feasible or 0)
    named = [line for line in (tmp_path / "ledger.log").read_text().splitlines() if "dear" in line]
    assert len(named) == len(rejected)


@pytest.mark.parametrize("objectives", [["accuracy", "params"], ["accuracy", "macs", "memory"]])
def test_any_cost_can_be_an_objective(tmp_path: Path, objectives: list[str]) -> None:
    ledger, conductor = conductor_for(space_file(objectives=objectives), tmp_path)
    play(conductor)

    complete = ledger.trials((TrialState.COMPLETE,))
    assert complete
    for trial in complete:
        costs = [trial.user_attrs[name] for name in objectives[1:]]
        assert trial.values == [pytest.approx(trial.intermediate_values[9]), *costs]
    assert TrialState.PRUNED in {trial.state for trial in ledger.trials()}


def test_trials_with_parameters_can_be_read_by_the_sampler(tmp_path: Path) -> None:
    """The ledger's own parameters, those of `first` among them, are Optuna's."""
    ledger, conductor = conductor_for(space_file(search={"first": ["resnet20"]}), tmp_path)
    play(conductor)
    first, *others = ledger.trials()

    assert first.params == {"stage1.width": "off", "stage2.width": "off", "stage3.width": "off"}
    assert all({"stage1.width", "stage2.width", "stage3.width"} <= set(t.params) for t in others)
    assert all(set(t.params) == set(t.distributions) for t in others)


def test_seeds_make_different_searches(tmp_path: Path) -> None:
    tried: list[Any] = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(tried))
        ledger, conductor = conductor_for(space_file(search={"seed": seed}), folder)
        play(conductor)
        tried.append(list(ledger.records()["architecture"]))

    assert tried[0] == tried[1]
    assert tried[0] != tried[2]
