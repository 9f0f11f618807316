"""Pruners and samplers give trial by trial what plain Optuna gives on the same learning curves."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import _filter_study
from optuna.trial import FrozenTrial, TrialState

from afi_search.registry import PRUNERS, SAMPLERS
from afi_search.search.conductor import Conductor
from afi_search.search.proposer import _ASKS, _Question, _seed
from afi_search.search.pruners import make_pruner, register_pruner
from afi_search.search.samplers import (
    GRID,
    KNOWN_COST,
    known_cost_sampler,
    make_sampler,
    register_sampler,
)
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.study.ledger import directions_of
from tests.search.studies import conductor_costs, conductor_for, space_file
from tests.typed import there

EPOCHS, TRIALS = 9, 40


class Patience(optuna.pruners.BasePruner):
    """Stops at the third epoch below the mean; counts them in the storage, as Optuna's own do."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        at = there(trial.last_step)
        others = [t.intermediate_values.get(at, np.nan) for t in study.get_trials(deepcopy=False)]
        count = trial.system_attrs.get("low", 0) + (trial.intermediate_values[at] < np.mean(others))
        study._storage.set_trial_system_attr(trial._trial_id, "low", int(count))
        return bool(count >= 3)


class Tally(optuna.pruners.BasePruner):
    """Stops at every 11th question, which it counts in the study."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        count = study._storage.get_study_system_attrs(study._study_id).get("asked", 0) + 1
        study._storage.set_study_system_attr(study._study_id, "asked", count)
        return bool(count % 11 == 0)


class Counting(optuna.samplers.BaseSampler):
    """Counts in the study, and looks at all that a trial has: as a user's sampler may."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, space: Any) -> dict[str, Any]:
        count = study._storage.get_study_system_attrs(study._study_id).get("count", 0) + 1
        study._storage.set_study_system_attr(study._study_id, "count", count)
        study._storage.set_trial_system_attr(trial._trial_id, "count", count)
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        known = [
            sum(t.intermediate_values.values())
            + t.user_attrs.get("macs", 0)
            + t.system_attrs.get("count", 0)
            + t.system_attrs.get("ended", 0)
            + trial.number
            for t in study.get_trials(deepcopy=False)
        ]
        draw = self._random.integers(2**31) + int(1e6 * sum(known))
        return distribution.choices[int(draw) % len(distribution.choices)]

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        study._storage.set_trial_system_attr(trial._trial_id, "ended", trial.number * state)


def macs_below_40_million(trial: FrozenTrial) -> list[float]:
    return [trial.user_attrs["macs"] - 40e6]


OUTSIDE_PRUNERS: dict[str, Callable[[SpaceFile], Any]] = {
    "patience": lambda file: Patience(),
    "tally": lambda file: Tally(),
    "patient-halving": lambda file: optuna.pruners.PatientPruner(
        optuna.pruners.SuccessiveHalvingPruner(), patience=1
    ),
    "percentile": lambda file: optuna.pruners.PercentilePruner(30.0, n_startup_trials=4),
}
OUTSIDE_SAMPLERS: dict[str, Callable[[SpaceFile, int], Any]] = {
    "counting": lambda file, seed: Counting(seed),
    "sequence": lambda file, seed: optuna.samplers.QMCSampler(seed=0, scramble=False),
    "liar": lambda file, seed: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
    "constrained": lambda file, seed: optuna.samplers.NSGAIISampler(
        seed=seed, population_size=6, constraints_func=macs_below_40_million
    ),
}


@pytest.fixture(autouse=True, scope="module")
def outside() -> Iterator[None]:
    for name, make_a_pruner in OUTSIDE_PRUNERS.items():
        register_pruner(name, make_a_pruner)
    for name, make_a_sampler in OUTSIDE_SAMPLERS.items():
        register_sampler(name, make_a_sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
    for names, registry in ((OUTSIDE_PRUNERS, PRUNERS), (OUTSIDE_SAMPLERS, SAMPLERS)):
        for name in names:
            del registry._entries[name]


@cache
def curve(number: int) -> list[float]:
    """Rises, with a ceiling of the trial's own and noise."""
    draw = random.Random(1000 + number)
    top = draw.uniform(0.4, 0.7)
    return [top * (1 - 0.6**epoch) + draw.gauss(0, 0.02) for epoch in range(1, EPOCHS + 1)]


def asked(pruner: str = "none", sampler: str = "random", **changes: Any) -> SpaceFile:
    several = pruner == "mo-asha"
    return space_file(
        **{
            "stages": {"all": {"width": ["off", "base", "B"], "ratio": [1, 2, 4, 8, 16]}},
            "recipe": {"epochs": EPOCHS},
            "objectives": ["accuracy", "macs"] if several else ["accuracy"],
            "search": {
                "trials": TRIALS,
                "sampler": sampler,
                "pruner": {"name": pruner, "grace_period": 1, "min_trials": 3},
                "first": ["resnet20"],
            },
            **changes,
        }
    )


def fails_after(number: int) -> int:
    """Return after how many epochs a trial fails, if it is not stopped before: one in five."""
    return number % 4 if number % 5 == 3 else EPOCHS


def train(conductor: Conductor, number: int, epochs: int = EPOCHS) -> None:
    """Report a trial's epochs to its end, each before the next is trained; or it fails."""
    for epoch in range(1, epochs + 1):
        if conductor.report(number, curve(number)[:epoch], 1.0):
            return
    conductor.fail(number, "its worker died")


class Plain:
    """Optuna without this project: ask, report, should_prune, tell."""

    def __init__(self, file: SpaceFile) -> None:
        self.file, self.space, self.costs = file, Space(file), conductor_costs(file)
        self.study = optuna.create_study(
            study_name="study",
            directions=directions_of(file.objectives),
            pruner=make_pruner(file),
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self.storage = self.study._storage

    def ask(self, number: int, tried: set[Architecture]) -> tuple[int, Architecture]:
        """Return the id of a trial, and what the sampler names when it is asked up to 3 times."""
        if self.file.search.sampler == KNOWN_COST:
            self.study.sampler = known_cost_sampler(self.space, self.costs)
        else:
            self.study.sampler = make_sampler(self.file, _seed(self.file.search, number))
        trial = self.study.ask()
        named = self.space.sample(trial)
        for _ in range(_ASKS - 1):
            if named in tried:
                asked = self.storage.get_trial(trial._trial_id)
                named = self.space.sample(
                    _Question(self.study.sampler, _filter_study(self.study, asked), asked)
                )
        return trial._trial_id, named

    def begin(self, architecture: Architecture) -> int:
        """Try an architecture that no sampler has named; return its trial's id."""
        answers = self.space.answers(architecture)
        self.study.enqueue_trial({name: answer for name, (answer, _) in answers.items()})
        trial = self.study.ask()
        assert self.space.sample(trial) == architecture
        return trial._trial_id

    def train(
        self, trial_id: int, architecture: Architecture, epochs: int = EPOCHS
    ) -> tuple[str, int]:
        """Report a trial's epochs to its end; return how it ends and after how many epochs."""
        self.price(trial_id, architecture)
        for epoch in range(1, epochs + 1):
            if ending := self.report(trial_id, epoch):
                return ending, epoch
        self.study.tell(self.storage.get_trial(trial_id).number, state=TrialState.FAIL)
        return "failed", epochs

    def price(self, trial_id: int, architecture: Architecture) -> None:
        for key, value in self.costs.of(architecture).figures().items():
            self.storage.set_trial_user_attr(trial_id, key, value)

    def report(self, trial_id: int, epoch: int) -> str:
        """Report an epoch; return how the trial ends with it, if it does."""
        number = self.storage.get_trial(trial_id).number
        accuracy = curve(number)[epoch - 1]
        self.storage.set_trial_intermediate_value(trial_id, epoch, accuracy)
        trial = self.storage.get_trial(trial_id)
        if epoch == EPOCHS:
            facts = {**trial.user_attrs, "accuracy": accuracy}
            self.study.tell(number, [facts[name] for name in self.file.objectives])
            return "complete"
        if self.study.pruner.prune(self.study, trial):
            self.study.tell(number, state=TrialState.PRUNED)
            return "pruned"
        return ""


@pytest.mark.parametrize("storage", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
@pytest.mark.parametrize("pruner", [*PRUNERS.names, *OUTSIDE_PRUNERS])
def test_every_pruner_stops_what_it_stops_in_plain_optuna(
    tmp_path: Path, pruner: str, storage: str
) -> None:
    file = asked(pruner)
    ledger, conductor = conductor_for(file, tmp_path, storage)
    while (assignment := conductor.next()) is not None:
        train(conductor, assignment.number)
    records = ledger.records()

    plain = Plain(file)
    expected = [
        plain.train(plain.begin(trial), trial)
        for trial in map(Architecture.parse, records["architecture"])
    ]
    assert list(zip(records["state"], records["epochs"], strict=True)) == expected
    assert {"complete", "pruned"} - {state for state, _ in expected} <= (
        {"pruned"} if pruner == "none" else set()
    )


@pytest.mark.parametrize("pruner", [*PRUNERS.names, *OUTSIDE_PRUNERS])
def test_failures_what_is_infeasible_and_new_drivers_change_nothing_of_that(
    tmp_path: Path, pruner: str
) -> None:
    file = asked(pruner, constraints={"macs": "45M"})
    for number in range(TRIALS):
        if number % 6 == 0:
            ledger, conductor = conductor_for(file, tmp_path)
        assignment = conductor.next()
        assert assignment is not None and assignment.number == number
        train(conductor, number, fails_after(number))
    records = ledger.records()

    plain = Plain(file)
    expected = [
        plain.train(plain.begin(trial), trial, fails_after(number))
        for number, trial in enumerate(map(Architecture.parse, records["architecture"]))
    ]
    assert list(zip(records["state"], records["epochs"], strict=True)) == expected
    assert "failed" in {state for state, _ in expected}
    assert (records["macs"] <= 45e6).all()


@pytest.mark.parametrize("pruner", [*PRUNERS.names, *OUTSIDE_PRUNERS])
def test_trials_side_by_side_and_drivers_that_die_change_nothing_of_that(
    tmp_path: Path, pruner: str
) -> None:
    file, draw = asked(pruner), random.Random(0)
    plain, ids = Plain(file), dict[int, int]()
    epochs: Counter[int] = Counter()
    while True:
        if epochs.total() % 17 == 0:
            _, conductor = conductor_for(file, tmp_path)
        while len(conductor.running) < 3 and (assignment := conductor.next()) is not None:
            if assignment.number not in ids:
                ids[assignment.number] = plain.begin(assignment.architecture)
                plain.price(ids[assignment.number], assignment.architecture)
        if not conductor.running:
            break
        number = draw.choice(sorted(conductor.running))
        epochs[number] += 1
        stops = conductor.report(number, curve(number)[: epochs[number]], 1.0)
        assert stops == bool(plain.report(ids[number], epochs[number]))


@pytest.mark.filterwarnings("ignore:`constraints_func`:FutureWarning")  # users still have it
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        (sampler, pruner)
        for sampler in (*SAMPLERS.names, *OUTSIDE_SAMPLERS)
        for pruner in ("none", "hyperband")
        # Ours knows all trials, where Optuna's hyperband shows a sampler those of a bracket.
        if (sampler, pruner) != (KNOWN_COST, "hyperband")
    ],
)
def test_every_sampler_names_what_it_names_in_plain_optuna(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    """With what has been tried already replaced alike, and a new driver every few trials."""
    file = asked(pruner, sampler)
    plain = Plain(file)
    tried: set[Architecture] = set()
    origins: list[str] = []
    trials = TRIALS // 2 if sampler == "gp" else TRIALS  # a proposal takes it longer each time
    for number in range(trials):
        if number % 7 == 0:
            ledger, conductor = conductor_for(file, tmp_path)
        assignment = conductor.next()
        assert assignment is not None and assignment.number == number
        origin = ledger.trial(number).user_attrs["origin"]
        if origin == "first":
            trial_id = plain.begin(assignment.architecture)
        elif sampler == GRID:
            untried = (a for a in plain.space.architectures() if a not in tried)
            assert assignment.architecture == next(untried)
            trial_id = plain.begin(assignment.architecture)
        else:
            trial_id, named = plain.ask(number, tried)
            assert (named == assignment.architecture) == (origin == sampler)
            assert origin == sampler or named in tried
            trial = plain.storage._get_trial(trial_id)  # type: ignore[attr-defined]
            trial.params = ledger.trial(number).params
            trial.distributions = ledger.trial(number).distributions
        origins.append(origin)
        tried.add(assignment.architecture)
        train(conductor, number)
        plain.train(trial_id, assignment.architecture)

    assert origins.count(sampler) > trials / 2
