"""Objectives of a user's own: searched, limited, recorded and compared like the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from afi_search.errors import UserError
from afi_search.registry import import_modules
from afi_search.search.prepare import require_feasible
from afi_search.space import Architecture, SpaceFileError
from afi_search.space.objective import Objective, register_objective
from afi_search.study.ledger import Ledger
from afi_search.study.pareto import front, hypervolume
from tests.search.studies import conductor_costs, conductor_for, play, space_file


@pytest.fixture(autouse=True)
def _registered(third_party: Path) -> None:
    import_modules(["everything"], third_party)
    register_objective(
        Objective("plain_stages", plain_stages, direction="up", title="plain stages")
    )


def plain_stages(architecture: Architecture, **others: object) -> int:
    return sum(choice is None for choice in architecture.stages)


OBJECTIVES = ("accuracy", "joules", "plain_stages")


def test_they_are_recorded_and_optimised_in_their_directions(tmp_path: Path) -> None:
    file = space_file(objectives=OBJECTIVES)
    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)

    up, down = StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE
    assert ledger.study.directions == [up, down, up]
    for trial in ledger.trials((TrialState.COMPLETE,)):
        architecture = Architecture.parse(trial.user_attrs["architecture"])
        _, joules, plain = trial.values
        assert plain == plain_stages(architecture) == trial.user_attrs["plain_stages"]
        assert joules == pytest.approx(
            1e-6 * trial.user_attrs["macs"] + 1e-4 * trial.user_attrs["params"]
        )
    records = Ledger.open(tmp_path).records()
    assert list(records.columns[-2:]) == ["joules", "plain_stages"]

    best = front(records)
    rows = best[[*OBJECTIVES]].to_numpy() * [1, -1, 1]
    full = records[records["full"]][[*OBJECTIVES]].to_numpy() * [1, -1, 1]
    expected = [not ((full >= row).all(1) & (full > row).any(1)).any() for row in full]
    assert 1 <= len(rows) == sum(expected)
    assert hypervolume(records, (0.0, 1e3, 0.0)) > 0


def test_a_limit_is_the_least_of_what_goes_up_and_the_most_of_what_goes_down(
    tmp_path: Path,
) -> None:
    limits = {"plain_stages": 2, "joules": 75}
    file = space_file(constraints=limits, search={"trials": 200, "sampler": "random"})
    costs = conductor_costs(file)
    allowed = {a for a in costs.space.architectures() if costs.allow(costs.of(a))}
    assert 0 < len(allowed) < sum(plain_stages(a) >= 2 for a in costs.space.architectures())

    ledger, conductor = conductor_for(file, tmp_path)
    play(conductor)

    tried = [trial.user_attrs["architecture"] for trial in ledger.trials()]
    assert sorted(tried) == sorted(map(str, allowed))
    assert ledger.rejected()
    require_feasible(tmp_path / "a.yaml", costs)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"constraints": {"plain_stages": 4}},
            "none of the 125 architectures keeps plain_stages 4",
        ),
        (
            {"constraints": {"joules": 60}, "search": {"first": ["resnet20(B-r4)"]}},
            r"search.first: resnet20\(B-r4\) has joules [0-9.]+ J, over 60 J",
        ),
        (
            {"constraints": {"plain_stages": 1}, "search": {"first": ["resnet20(B-r4)"]}},
            r"search.first: resnet20\(B-r4\) has plain_stages 0, under 1",
        ),
    ],
)
def test_what_no_architecture_keeps_is_told(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SpaceFileError, match=said):
        require_feasible(Path("a.yaml"), conductor_costs(space_file(**changes)))


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), None, "many"])
def test_what_is_no_number_is_told(answer: Any) -> None:
    name = f"answers_{answer}"
    register_objective(Objective(name, lambda architecture, **others: answer))
    costs = conductor_costs(space_file(objectives=["accuracy", name]))
    with pytest.raises(UserError, match=f"'{name}' gives .* for resnet20; it must give a num"):
        costs.of(Architecture.plain("resnet20"))


def test_a_network_can_be_built_to_be_measured() -> None:
    stages = {"all": {"width": ["B"], "attention": ["gate"]}}
    costs = conductor_costs(space_file(objectives=["accuracy", "gates"], stages=stages))
    assert costs.of(costs.space[0]).own == {"gates": 6}
    assert costs.of(Architecture.plain("resnet20")).own == {"gates": 0}
