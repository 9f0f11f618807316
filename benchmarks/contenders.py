"""Who is compared: our own conductor with its settings, and peers behind the same methods.

The peers' decisions are those of their own objects; only the asking and telling is written here,
as their engines do it.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Sequence
from datetime import datetime
from itertools import count
from typing import Any

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from afi_search.cost import SpaceCosts
from afi_search.search.conductor import Assignment, Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import make_pruner
from afi_search.space import Architecture, Space
from afi_search.space.schema import Search
from afi_search.study import Ledger
from afi_search.study.ledger import directions_of

HAS_SYNE_TUNE = importlib.util.find_spec("syne_tune") is not None
NO_END = 10**9
REDUCTION = 3


def ours(space: Space, costs: SpaceCosts, search: Search) -> Conductor:
    """Return the production conductor on a ledger in memory."""
    file = space.file.model_copy(update={"search": search})
    storage = InMemoryStorage()
    study = optuna.create_study(storage=storage, directions=directions_of(file.objectives))
    return Conductor(
        Ledger(study, storage),
        file,
        Proposer(Space(file), costs, file.objectives),
        make_pruner(file),
    )


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
        self._epochs = epochs
        self._search = OptunaSearch(
            space=lambda trial: {"architecture": space.sample(trial).text},
            metric=["accuracy", "macs"],
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
        number = next(self._numbers)
        config = self._search.suggest(str(number))
        assert config is not None
        architecture = Architecture.parse(config["architecture"])
        trial = Trial("trial", config=config, trial_id=str(number), stub=True)
        self._trials[number] = trial, float(self._costs.of(architecture).macs)
        if self._scheduler:
            self._scheduler.on_trial_add(None, trial)
        return Assignment(number, architecture, self._seed)

    def report(self, number: int, accuracies: Sequence[float], seconds: float) -> bool:
        """Tell a result, and at the trial's end the completion."""
        trial, macs = self._trials[number]
        result = {
            "accuracy": accuracies[-1],
            "macs": macs,
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
    """Syne Tune's MOASHA over accuracy and MACs, which draws configurations at random.

    Needs `pip install syne-tune`, which is no dependency of this project.
    """

    has_next = True

    def __init__(
        self, space: Space, costs: SpaceCosts, seed: int, *, epochs: int, grace: int
    ) -> None:
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        random.seed(seed)
        np.random.seed(seed)
        self._costs, self._seed = costs, seed
        self._texts = {str(a): a for a in space.architectures()}
        self._scheduler = MOASHA(
            {"architecture": choice(list(self._texts))},
            metrics=["loss", "macs"],
            do_minimize=True,
            time_attr="epoch",
            max_t=epochs,
            grace_period=grace,
            reduction_factor=REDUCTION,
            random_seed=seed,
        )
        self._trials: dict[int, Any] = {}
        self._macs: dict[int, float] = {}

    def next(self) -> Assignment:
        """Ask the scheduler."""
        from syne_tune.backend.trial_status import Trial as SyneTrial

        number = len(self._trials)
        suggestion = self._scheduler.suggest()
        assert suggestion is not None and suggestion.config is not None
        architecture = self._texts[suggestion.config["architecture"]]
        trial = SyneTrial(number, suggestion.config, datetime.now())
        self._trials[number], self._macs[number] = trial, self._costs.of(architecture).macs
        self._scheduler.on_trial_add(trial)
        return Assignment(number, architecture, self._seed)

    def report(self, number: int, accuracies: Sequence[float], seconds: float) -> bool:
        """Tell a result; it stops a trial itself at its last epoch."""
        from syne_tune.optimizer.scheduler import SchedulerDecision

        result = {"loss": -accuracies[-1], "macs": self._macs[number], "epoch": len(accuracies)}
        decision = self._scheduler.on_trial_result(self._trials[number], result)
        return bool(decision == SchedulerDecision.STOP)
