"""Who is compared: our own conductor with its settings, and peers behind the same methods.

The peers' decisions are those of their own objects; only the asking and telling is written here,
as their engines do it. All have what ours has: no architecture is trained twice, costs are exact.
Samplers of Optuna's kind (local search, regularised evolution, an NSGA-II whose population fills)
are asked by our own proposer; other schedulers are asked again where they repeat themselves.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import count
from typing import Any, TypeVar

import moocore
import numpy as np
import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from afi_search.cost import SpaceCosts
from afi_search.search.conductor import Assignment, Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import make_pruner
from afi_search.search.samplers import register_sampler
from afi_search.space import Architecture, Space
from afi_search.space.architecture import choice_text
from afi_search.space.schema import Search
from afi_search.study import Ledger
from afi_search.study.ledger import directions_of

T = TypeVar("T")
HAS_SYNE_TUNE = importlib.util.find_spec("syne_tune") is not None
NO_END = 10**9
REDUCTION = 3
_DRAWN, _LOOKED_AT = 2_000, 250


def ours(space: Space, costs: SpaceCosts, search: Search) -> Conductor:
    """Return the production conductor on a ledger in memory."""
    file = space.file.model_copy(update={"search": search})
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, directions=directions_of(file.objectives))
    return Conductor(
        Ledger(study, storage),
        file,
        Proposer(Space(file), costs),
        make_pruner(file),
    )


class LocalSearch(BaseSampler):
    """Changes one choice of a trial of the front that is drawn anew each time."""

    _startup = 10

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._uniform = optuna.samplers.RandomSampler(seed=seed)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return nothing: each parameter is answered by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the trial to start from, and which of its parameters changes."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        self._parent = self._choose(done, study) if len(done) >= self._startup else {}
        names = list(self._parent)
        self._changes = names[self._random.integers(len(names))] if names else ""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return what the parent has, but for the parameter that changes."""
        drawn = self._uniform.sample_independent(study, trial, param_name, param_distribution)
        return drawn if param_name == self._changes else self._parent.get(param_name, drawn)

    def _choose(self, done: list[FrozenTrial], study: Study) -> dict[str, Any]:
        front = [trial for trial, rank in zip(done, _ranks(done, study), strict=True) if rank == 0]
        return front[self._random.integers(len(front))].params


class RegularisedEvolution(LocalSearch):
    """Changes one choice of the best of five of the newest 20 trials (Real et al. 2019), by rank.

    Source: arXiv:1802.01548; non-dominated rank in place of accuracy.
    """

    _population, _tournament = 20, 5

    def _choose(self, done: list[FrozenTrial], study: Study) -> dict[str, Any]:
        living = done[-self._population :]
        rank = _ranks(living, study)
        drawn = self._random.choice(len(living), size=min(self._tournament, len(living)))
        return living[min(drawn, key=lambda each: rank[each])].params


def _ranks(trials: list[FrozenTrial], study: Study) -> np.ndarray:
    values = np.array([trial.values for trial in trials])
    maximise = [direction == StudyDirection.MAXIMIZE for direction in study.directions]
    return np.asarray(moocore.pareto_rank(values, maximise=maximise))


PEERS = {
    "local-search": lambda file, seed: LocalSearch(seed),
    "evolution": lambda file, seed: RegularisedEvolution(seed),
    "nsga2-of-10": lambda file, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=10),
}
for name, make in PEERS.items():
    register_sampler(name, make)


class Distinct:
    """Asks a peer again where it repeats itself; what it names again and again is trained again."""

    _tries = 50

    def __init__(self) -> None:
        self._tried: set[Architecture] = set()

    def first_new(self, ask: Callable[[], tuple[T, Architecture]]) -> tuple[T, Architecture]:
        """Return the first answer whose architecture is new."""
        for _ in range(self._tries):
            answer = ask()
            if answer[1] not in self._tried:
                break
        self._tried.add(answer[1])
        return answer


class RayTune:
    """OptunaSearch with its default sampler, and ASHAScheduler on accuracy or no scheduler.

    Told as Tune's loop tells them: a trial that the scheduler stops completes with its last
    result.
    """

    has_next = True

    def __init__(
        self, space: Space, costs: SpaceCosts, seed: int, *, epochs: int, grace: int | None
    ) -> None:
        self._costs, self._seed = costs, seed
        self._cost = space.file.costs[0]
        self._epochs = epochs
        self._distinct = Distinct()
        self._search = OptunaSearch(
            space=lambda trial: {"architecture": space.sample(trial).text},
            metric=["accuracy", "cost"],
            mode=["max", "min"],
            seed=seed,
        )
        self._scheduler = (
            None
            if grace is None
            else ASHAScheduler(
                metric="accuracy",
                mode="max",
                max_t=epochs,
                grace_period=grace,
                reduction_factor=REDUCTION,
            )
        )
        self._trials: dict[int, tuple[Trial, float]] = {}
        self._numbers = count()

    def next(self) -> Assignment:
        """Ask the searcher, and show the trial to the scheduler."""
        number, architecture = self._distinct.first_new(self._ask)
        trial = Trial("trial", trial_id=str(number), stub=True)
        self._trials[number] = trial, float(getattr(self._costs.of(architecture), self._cost))
        if self._scheduler:
            self._scheduler.on_trial_add(None, trial)
        return Assignment(number, architecture, self._seed)

    def _ask(self) -> tuple[int, Architecture]:
        number = next(self._numbers)
        config = self._search.suggest(str(number))
        assert config is not None
        return number, Architecture.parse(config["architecture"])

    def report(self, number: int, accuracies: Sequence[float], seconds: float) -> bool:
        """Tell a result, and at the trial's end the completion."""
        trial, cost = self._trials[number]
        result = {
            "accuracy": accuracies[-1],
            "cost": cost,
            "training_iteration": len(accuracies),
        }
        stops = len(accuracies) == self._epochs
        if stops and self._scheduler:
            self._scheduler.on_trial_complete(None, trial, result)
        elif self._scheduler:
            action = self._scheduler.on_trial_result(None, trial, result)
            stops = action == TrialScheduler.STOP
        self._search.on_trial_result(str(number), result)
        if stops:
            self._search.on_trial_complete(str(number), result)
        return stops


class SyneTune:
    """A scheduler of Syne Tune's over accuracy and a cost, with one choice a stage.

    Needs `pip install syne-tune`, which is no dependency of this project.

    Args:
        space, costs, seed: of the search.
        make: the space of Syne Tune's, the metrics' names and the seed -> the scheduler.
    """

    has_next = True

    def __init__(
        self,
        space: Space,
        costs: SpaceCosts,
        seed: int,
        make: Callable[[dict[str, Any], list[str], int], Any],
    ) -> None:
        from syne_tune.config_space import choice

        random.seed(seed)
        np.random.seed(seed)
        self._costs, self._seed, self._cost = costs, seed, space.file.costs[0]
        self._backbone = space.file.backbone or ""
        self._choices = [{choice_text(c): c for c in choices} for choices in space.stage_choices]
        self._epochs = space.file.recipe.epochs
        self._distinct = Distinct()
        self._scheduler = make(
            {f"stage{at}": choice(list(texts)) for at, texts in enumerate(self._choices)},
            ["loss", "cost"],
            seed,
        )
        self._trials: list[tuple[Any, float]] = []

    def next(self) -> Assignment:
        """Ask the scheduler."""
        from syne_tune.backend.trial_status import Trial as SyneTrial

        config, architecture = self._distinct.first_new(self._ask)
        number = len(self._trials)
        trial = SyneTrial(number, config, datetime.now())
        self._trials.append((trial, getattr(self._costs.of(architecture), self._cost)))
        self._scheduler.on_trial_add(trial)
        return Assignment(number, architecture, self._seed)

    def _ask(self) -> tuple[dict[str, str], Architecture]:
        config = self._scheduler.suggest().config
        stages = (texts[config[f"stage{at}"]] for at, texts in enumerate(self._choices))
        return config, Architecture(self._backbone, tuple(stages))

    def report(self, number: int, accuracies: Sequence[float], seconds: float) -> bool:
        """Tell a result, and at the trial's end the completion."""
        from syne_tune.optimizer.scheduler import SchedulerDecision

        trial, cost = self._trials[number]
        result = {"loss": -accuracies[-1], "cost": cost, "epoch": len(accuracies)}
        if len(accuracies) == self._epochs:
            self._scheduler.on_trial_complete(trial, result)
            return True
        decision = self._scheduler.on_trial_result(trial, result)
        return bool(decision == SchedulerDecision.STOP)


def moasha(epochs: int, grace: int) -> Callable[[dict[str, Any], list[str], int], Any]:
    """Return Syne Tune's MOASHA, which draws configurations at random."""

    def make(config: dict[str, Any], metrics: list[str], seed: int) -> Any:
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        return MOASHA(
            config,
            metrics=metrics,
            do_minimize=True,
            time_attr="epoch",
            max_t=epochs,
            grace_period=grace,
            reduction_factor=REDUCTION,
            random_seed=seed,
        )

    return make


def morea(config: dict[str, Any], metrics: list[str], seed: int) -> Any:
    """Return Syne Tune's regularised evolution over several objectives, of 10 of 20."""
    from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
    from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

    searcher = MultiObjectiveRegularizedEvolution(
        config, population_size=10, sample_size=5, random_seed=seed
    )
    return SingleFidelityScheduler(config, metrics, searcher=searcher, random_seed=seed)


def ehvi(space: Space, costs: SpaceCosts) -> Callable[[dict[str, Any], list[str], int], Any]:
    """Return Syne Tune's model-based search, expected hypervolume improvement of two processes.

    Four things are mended of 0.16, without which it would be no rival. It maximises negative
    objectives above a reference point of 2, which no accuracy reaches: it is told objectives that
    lie between 2 and 3. It pairs results in the order of their coming with configurations in the
    order of their start. It mixes float32 with float64, which today's BoTorch refuses. And its
    acquisition is looked up at `_LOOKED_AT` untried points, instead of between the points, from
    where it is rounded to one that was tried.
    """
    cost = space.file.costs[0]
    dearest = max(float(getattr(costs.of(each), cost)) for each in space.architectures())

    def make(config: dict[str, Any], metrics: list[str], seed: int) -> Any:
        import torch
        from botorch.optim import optimize_acqf_discrete
        from syne_tune.optimizer.schedulers.multiobjective import (
            expected_hyper_volume_improvement as theirs,
        )
        from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

        class Searcher(theirs.ExpectedHyperVolumeImprovement):  # type: ignore[misc]
            def _untried(self) -> list[dict[str, Any]]:
                tried = {tuple(each.values()) for each in self.trial_configs.values()}
                drawn = zip(
                    *(
                        np.array(of.categories)[self.random_state.choice(len(of), _DRAWN)].tolist()
                        for of in self.config_space.values()
                    ),
                    strict=True,
                )
                fresh = dict.fromkeys(each for each in drawn if each not in tried)
                looked_at = [*fresh][:_LOOKED_AT]
                return [dict(zip(self.config_space, each, strict=True)) for each in looked_at]

            def _sample_next_candidate(self) -> Any:
                usual = torch.get_default_dtype()
                torch.set_default_dtype(torch.float64)
                try:
                    left = self._config_to_feature_matrix(self._untried())
                    theirs.optimize_acqf = lambda acquisition, **_: optimize_acqf_discrete(
                        acquisition, q=1, choices=left
                    )
                    return super()._sample_next_candidate()
                finally:
                    torch.set_default_dtype(usual)

            def objectives(self) -> Any:
                return np.array(
                    [self.trial_observations[n] for n in sorted(self.trial_observations)]
                )

            def on_trial_complete(self, trial_id: int, config: Any, metrics: list[float]) -> None:
                loss, spent = metrics
                super().on_trial_complete(trial_id, config, [loss - 2, spent / dearest - 3])

        return SingleFidelityScheduler(
            config, metrics, searcher=Searcher(config, random_seed=seed), random_seed=seed
        )

    return make
