from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import moocore
import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study
from optuna.testing import pytest_samplers
from optuna.trial import FrozenTrial, TrialState, create_trial

from afi_search.search.samplers.choice_grid import ChoiceGrid
from afi_search.search.samplers.evidence import Evidence
from afi_search.search.samplers.known_cost import KnownCostSampler, best_addition
from afi_search.search.samplers.surrogate import Surrogate
from afi_search.study.ledger import PREDICTION

CHOICES = ("plain", "thin", "wide")
SPACE: dict[str, BaseDistribution] = {
    name: CategoricalDistribution(CHOICES) for name in ("a", "b", "c")
}
BOTH: list[Any] = ["maximize", "minimize"]


def size(params: dict[str, Any]) -> list[float]:
    return [float(sum(1 + 2 * CHOICES.index(choice) for choice in params.values()))]


def quality(params: dict[str, Any]) -> float:
    """Not additive: the second choice only helps after the first."""
    a, b, c = (CHOICES.index(params[name]) for name in "abc")
    return 0.5 + 0.1 * a + 0.05 * a * b - 0.02 * c


def objective(trial: optuna.Trial) -> tuple[float, ...]:
    params = {name: trial.suggest_categorical(name, CHOICES) for name in SPACE}
    return quality(params), *size(params)


def tried(study: Study) -> list[tuple[Any, ...]]:
    return [tuple(trial.params[name] for name in SPACE) for trial in study.trials]


def filled(seed: int, trials: int = 15) -> Study:
    study = optuna.create_study(directions=BOTH, sampler=KnownCostSampler(size, seed=seed))
    study.optimize(objective, n_trials=trials)
    return study


def test_a_space_is_tried_whole_and_nothing_twice_while_others_are_left() -> None:
    study = filled(0, trials=27)

    assert sorted(tried(study)) == sorted(product(CHOICES, repeat=3))


def test_trials_that_run_are_not_proposed_again() -> None:
    study = optuna.create_study(directions=BOTH, sampler=KnownCostSampler(size, seed=0))
    running = [study.ask(SPACE) for _ in range(4)]
    for _ in range(23):
        running.append(study.ask(SPACE))
        done = running.pop(0)
        study.tell(done, [quality(done.params), *size(done.params)])

    assert len(set(tried(study))) == 27


def test_bounds_are_kept_and_all_within_them_is_tried() -> None:
    sampler = KnownCostSampler(size, bounds=[7], groups=groups(), seed=0)
    study = optuna.create_study(directions=BOTH, sampler=sampler)
    allowed = [
        point
        for point in product(CHOICES, repeat=3)
        if size(dict(zip(SPACE, point, strict=True)))[0] <= 7
    ]
    study.optimize(objective, n_trials=len(allowed))

    assert sorted(tried(study)) == sorted(allowed)


def test_a_bound_may_be_on_what_is_no_objective() -> None:
    def size_and_wides(params: dict[str, Any]) -> list[float]:
        return [*size(params), list(params.values()).count("wide")]

    sampler = KnownCostSampler(size_and_wides, bounds=[None, 0], groups=groups(), seed=0)
    study = optuna.create_study(directions=BOTH, sampler=sampler)
    study.optimize(objective, n_trials=8)

    assert sorted(tried(study)) == sorted(product(CHOICES[:2], repeat=3))


def groups() -> list[list[dict[str, str]]]:
    return [[{name: choice} for choice in CHOICES] for name in SPACE]


@pytest.mark.parametrize("after", [3, 12])
def test_a_study_that_is_resumed_proposes_what_it_would_have_proposed(after: int) -> None:
    straight = filled(3)
    storage = InMemoryStorage()
    for trials in (after, 15 - after):
        sampler = KnownCostSampler(size, seed=3)
        study = optuna.create_study(
            storage=storage,
            study_name="study",
            load_if_exists=True,
            directions=BOTH,
            sampler=sampler,
        )
        study.optimize(objective, n_trials=trials)

    # The first trial of all is drawn parameter by parameter, as nobody knows yet what there is.
    assert tried(study)[1:] == tried(straight)[1:]
    assert tried(filled(4)) != tried(straight)


@pytest.mark.parametrize("known", [False, True])
def test_a_sampler_of_two_studies_proposes_in_each_what_one_of_its_own_would(known: bool) -> None:
    def second(sampler: KnownCostSampler) -> Study:
        study = optuna.create_study(directions=BOTH, sampler=sampler)
        for a, b, c in list(product(CHOICES, repeat=3))[:9]:
            study.enqueue_trial({"a": a, "b": b, "c": c})
        study.optimize(objective, n_trials=20)
        return study

    own, shared = (
        KnownCostSampler(size, groups=groups() if known else (), seed=3) for _ in range(2)
    )
    first = optuna.create_study(directions=BOTH, sampler=shared)
    first.optimize(objective, n_trials=20)

    assert tried(second(shared))[1:] == tried(second(own))[1:]


def test_what_was_predicted_is_kept_with_the_trial() -> None:
    study = filled(0, trials=20)
    drawn, modelled = study.trials[:10], study.trials[10:]

    assert not any(PREDICTION in trial.system_attrs for trial in drawn)
    for trial in modelled:
        mean, deviation = trial.system_attrs[PREDICTION]
        assert deviation > 0
        assert abs(mean - trial.values[0]) < 0.2


def test_the_front_of_a_space_is_found_sooner_than_at_random() -> None:
    """Of a space of 3 ** 5, with 40 trials; 8 seeds."""
    names = "abcde"

    def big(trial: optuna.Trial) -> tuple[float, ...]:
        params = {name: trial.suggest_categorical(name, CHOICES) for name in names}
        return quality(params) + 0.03 * CHOICES.index(params["e"]), *size(params)

    def hypervolume(sampler: BaseSampler) -> float:
        study = optuna.create_study(directions=BOTH, sampler=sampler)
        study.optimize(big, n_trials=40)
        losses = np.array([[-t.values[0], t.values[1] / 25] for t in study.trials])
        return float(moocore.hypervolume(losses, ref=[0.0, 1.1]))

    ours = [hypervolume(KnownCostSampler(size, seed=seed)) for seed in range(8)]
    random = [hypervolume(optuna.samplers.RandomSampler(seed=seed)) for seed in range(8)]

    assert np.mean(ours) > np.mean(random)
    assert np.mean(np.greater(ours, random)) >= 0.75


def test_accuracy_alone_is_searched_too() -> None:
    sampler = KnownCostSampler(size, bounds=[9], groups=groups(), seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: objective(trial)[0], n_trials=16)
    within = [
        quality(params)
        for point in product(CHOICES, repeat=3)
        if size(params := dict(zip(SPACE, point, strict=True)))[0] <= 9
    ]

    assert study.best_value == pytest.approx(max(within))


def test_a_loss_is_minimised_and_a_gain_maximised() -> None:
    """Turned round, the same search."""
    studies = []
    for sign, directions in ((1, BOTH), (-1, BOTH[::-1])):

        def known(params: dict[str, Any], sign: int = sign) -> list[float]:
            return [sign * size(params)[0]]

        def turned(trial: optuna.Trial, sign: int = sign) -> tuple[float, ...]:
            return tuple(sign * value for value in objective(trial))

        sampler = KnownCostSampler(known, seed=1)
        studies.append(optuna.create_study(directions=directions, sampler=sampler))
        studies[-1].optimize(turned, n_trials=15)

    assert tried(studies[0])[:10] == tried(studies[1])[:10]
    assert [abs(t.values[0]) for t in studies[1].trials] == [
        quality(t.params) for t in studies[1].trials
    ]


def test_the_learned_objective_may_stand_anywhere() -> None:
    sampler = KnownCostSampler(size, learned=1, seed=3)
    study = optuna.create_study(directions=BOTH[::-1], sampler=sampler)
    study.optimize(lambda trial: objective(trial)[::-1], n_trials=15)

    assert tried(study)[1:] == tried(filled(3))[1:]


def test_several_costs_are_searched() -> None:
    def costs(params: dict[str, Any]) -> list[float]:
        return [*size(params), float(list(params.values()).count("thin"))]

    study = optuna.create_study(
        directions=[*BOTH, "minimize"], sampler=KnownCostSampler(costs, seed=0)
    )
    study.optimize(lambda trial: (objective(trial)[0], *costs(trial.params)), n_trials=27)

    assert len(set(tried(study))) == 27


def test_too_few_known_values_are_refused() -> None:
    sampler = KnownCostSampler(lambda params: [], groups=groups(), startup=4, seed=0)
    study = optuna.create_study(directions=BOTH, sampler=sampler)

    with pytest.raises(ValueError, match="cost_of returns 0 values, and the study has 1 objective"):
        study.optimize(objective, n_trials=5)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ([float("nan")], r"cost_of returns \[nan\] for \{'a': "),
        ([float("inf")], "a list of finite numbers"),
        (7, "cost_of returns 7 for"),
        (None, "cost_of returns None for"),
        ([None], "a list of finite numbers"),
    ],
)
def test_costs_that_are_no_finite_numbers_are_refused(told: Any, words: str) -> None:
    sampler = KnownCostSampler(lambda params: told, groups=groups(), seed=0)
    study = optuna.create_study(directions=BOTH, sampler=sampler)

    with pytest.raises(ValueError, match=words):
        study.optimize(objective, n_trials=1)


def test_a_hint_that_is_no_finite_number_is_refused() -> None:
    sampler = KnownCostSampler(
        size, hint_of=lambda params: [float("nan")], groups=groups(), startup=4, seed=0
    )
    study = optuna.create_study(directions=BOTH, sampler=sampler)

    with pytest.raises(ValueError, match=r"hint_of returns \[nan\]"):
        study.optimize(objective, n_trials=5)


def test_a_cost_of_a_parameter_that_not_all_trials_have_is_told_to_want_groups() -> None:
    def growing(trial: optuna.Trial) -> tuple[float, float]:
        depth = trial.suggest_int("depth", 1, 4 if trial.number < 2 else 8)
        return depth, depth + len(trial.suggest_categorical("a", CHOICES))

    sampler = KnownCostSampler(lambda params: [params["depth"]], seed=0)
    study = optuna.create_study(directions=BOTH, sampler=sampler)

    with pytest.raises(ValueError, match=r"cost_of asks for 'depth'.* groups"):
        study.optimize(growing, n_trials=5)


def test_an_integer_of_too_many_values_is_refused_by_name() -> None:
    study = optuna.create_study(directions=BOTH, sampler=KnownCostSampler(size, seed=0))

    with pytest.raises(ValueError, match="at most 10,000 values, and seed has 1,000,000,000"):
        study.optimize(lambda trial: (trial.suggest_int("seed", 1, 10**9), 1.0), n_trials=3)


def test_integers_are_steps_of_a_scale() -> None:
    grid = ChoiceGrid(
        [[{"x": x} for x in range(5)], [{"k": k} for k in "ab"]], [np.arange(5.0), None], size
    )
    features = grid.features(np.array([[0, 0], [1, 0], [4, 0], [0, 1]]))
    differ = ((features[0] - features) ** 2).sum(axis=1) / 2

    assert differ == pytest.approx([0, 1 / 8, 1 / 2, 1 / 2])


def test_integers_and_dependent_parameters_are_proposed_as_they_are_asked() -> None:
    combinations: list[list[dict[str, Any]]] = [
        [{"on": False}, *({"on": True, "ratio": ratio} for ratio in (4, 8))],
        [{"depth": depth} for depth in (20, 32)],
    ]

    def conditional(trial: optuna.Trial) -> float:
        on = trial.suggest_categorical("on", [False, True])
        ratio = trial.suggest_categorical("ratio", [4, 8]) if on else 0
        return ratio + trial.suggest_categorical("depth", [20, 32])

    sampler = KnownCostSampler(lambda params: [], groups=combinations, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(conditional, n_trials=6)

    assert len({tuple(trial.params.items()) for trial in study.trials}) == 6
    assert study.best_value == 40


def test_a_float_is_refused_by_name() -> None:
    study = optuna.create_study(sampler=KnownCostSampler(lambda params: []))

    with pytest.raises(ValueError, match="and lr is a FloatDistribution"):
        study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=1)


def finished(
    choice: str, values: Sequence[float] | None, curve: Sequence[float], state: TrialState
) -> FrozenTrial:
    return create_trial(
        state=state,
        values=values,
        params={"a": choice},
        distributions={"a": CategoricalDistribution(CHOICES)},
        intermediate_values=dict(enumerate(curve, start=1)),
    )


def test_a_stopped_trial_counts_with_the_mean_and_variance_of_what_full_trainings_gained() -> None:
    curves = [(0.1, 0.3, 0.5), (0.2, 0.3, 0.4), (0.3, 0.5, 0.7), (0.2, 0.4, 0.6)]
    trials = [finished("plain", [c[-1], 1.0], c, TrialState.COMPLETE) for c in curves]
    trials.append(finished("thin", None, (0.2, 0.45), TrialState.PRUNED))
    trials.append(finished("wide", None, (0.35,), TrialState.RUNNING))
    trials.append(finished("wide", None, (), TrialState.RUNNING))
    codes = np.array([[0]] * 4 + [[1], [2], [2]])
    cost = np.arange(7.0)[:, None]
    evidence = Evidence.of(trials, codes, cost, 0, 1.0)

    assert evidence is not None
    second = np.array([0.2, 0.1, 0.2, 0.2])
    first = np.array([0.4, 0.2, 0.4, 0.4])
    assert evidence.value[4:] == pytest.approx([0.45 + second.mean(), 0.35 + first.mean()])
    assert evidence.variance == pytest.approx(
        [0, 0, 0, 0, second.var(ddof=1) * 5 / 4, first.var(ddof=1) * 5 / 4]
    )
    assert evidence.pending.tolist() == [[2]]
    assert evidence.pending_cost.tolist() == [[6.0]]
    assert Evidence.of(trials[1:], codes[1:], cost[1:], 0, 1.0) is None


def test_what_lies_outside_the_grid_and_what_failed_is_no_evidence() -> None:
    full = finished("plain", [0.5, 1.0], (0.5,), TrialState.COMPLETE)
    failed = finished("plain", None, (0.9,), TrialState.FAIL)
    outside = finished("plain", [9.9, 1.0], (9.9,), TrialState.COMPLETE)
    codes = np.array([[0]] * 4 + [[0], [-1]])
    evidence = Evidence.of([*[full] * 4, failed, outside], codes, np.ones((6, 1)), 0, 1.0)

    assert evidence is not None
    assert evidence.value.tolist() == [0.5] * 4


def test_the_posterior_is_that_of_the_textbook() -> None:
    """Rasmussen and Williams (2006), equations 2.25 and 2.26, written out."""
    random = np.random.default_rng(0)
    features = np.eye(3)[random.integers(3, size=(12, 4))].reshape(12, 12) / 2
    cost = random.uniform(1, 9, size=(12, 2))
    value = random.normal(0.7, 0.1, size=12)
    variance = random.uniform(0, 0.01, size=12)
    model = Surrogate(features[:9], cost[:9], value[:9], variance[:9])
    mean, deviation = model.predict(features, cost)

    radius, weight, noise = model.hyperparameters
    logs = np.log(cost)
    logs = (logs - logs[:9].mean(axis=0)) / logs[:9].std(axis=0)
    differ = ((features[:, None] - features) ** 2).sum(axis=2) / 2
    prior = weight * np.exp(-differ / radius) + 0.3 * logs @ logs.T + 1
    spread = value[:9].std()
    seen = prior[:9, :9] + np.diag(noise + variance[:9] / spread**2)
    across = prior[:, :9] @ np.linalg.inv(seen)

    assert mean == pytest.approx(
        value[:9].mean() + across @ (value[:9] - value[:9].mean()), abs=1e-9
    )
    assert deviation == pytest.approx(
        spread * np.sqrt(np.diag(prior - across @ prior[:9])), abs=1e-7
    )


@pytest.mark.parametrize("costs", [1, 2])
def test_the_best_addition_is_that_of_brute_force(costs: int) -> None:
    random = np.random.default_rng(costs)
    for _ in range(20):
        front, hoped = random.uniform(size=(8, 1 + costs)), random.uniform(size=(30, 1 + costs))
        reference = [1.1] * (1 + costs)
        volumes = [
            moocore.hypervolume(np.vstack([front, candidate]), ref=reference) for candidate in hoped
        ]

        assert volumes[best_addition(front, hoped)] == pytest.approx(max(volumes))


def test_where_nothing_adds_the_nearest_to_the_front_is_taken() -> None:
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    behind = np.array([[0.5, 1.05], [0.01, 1.01], [1.05, 0.4]])

    assert best_addition(front, behind) == 1
    assert best_addition(np.array([[0.3], [0.5]]), np.array([[0.4], [0.2], [0.9]])) == 1


NUMBERS = [IntDistribution(3, 10), IntDistribution(1, 100, log=True), IntDistribution(3, 9, step=2)]
UNTOLD = [CategoricalDistribution((1, 2, 3)), CategoricalDistribution((1, "a"))]


class OfOptuna:
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: KnownCostSampler(lambda params: [0.0], startup=2, seed=0)


class TestRelative(OfOptuna):
    """Optuna's own suite, as far as it does without floats."""

    suite = pytest_samplers.RelativeSamplerTestCase()

    @pytest.mark.parametrize("x", NUMBERS)
    @pytest.mark.parametrize("y", NUMBERS)
    def test_numerical(
        self, sampler: Callable[[], BaseSampler], x: IntDistribution, y: IntDistribution
    ) -> None:
        self.suite.test_sample_relative_numerical(sampler, x, y)

    @pytest.mark.parametrize("x", NUMBERS)
    def test_mixed(self, sampler: Callable[[], BaseSampler], x: IntDistribution) -> None:
        self.suite.test_sample_relative_mixed(sampler, x)

    def test_categorical(self, sampler: Callable[[], BaseSampler]) -> None:
        self.suite.test_sample_relative_categorical(sampler)


class TestIndependent(OfOptuna):
    basic = pytest_samplers.BasicSamplerTestCase()
    several = pytest_samplers.MultiObjectiveSamplerTestCase()

    @pytest.mark.parametrize("distribution", NUMBERS)
    def test_int(self, sampler: Callable[[], BaseSampler], distribution: IntDistribution) -> None:
        self.basic.test_int(sampler, distribution)

    @pytest.mark.parametrize("choices", [(1, 2, 3), ("a", "b", "c"), (1, "a")])
    def test_categorical(self, sampler: Callable[[], BaseSampler], choices: Sequence[Any]) -> None:
        self.basic.test_categorical(sampler, choices)

    @pytest.mark.parametrize("distribution", [*NUMBERS, *UNTOLD])
    def test_several_objectives(
        self, sampler: Callable[[], BaseSampler], distribution: BaseDistribution
    ) -> None:
        self.several.test_multi_objective_sample_independent(sampler, distribution)
