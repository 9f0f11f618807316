"""What to try next: what an Optuna sampler names, or what is nearest to it and not tried yet.

The sampler is shown the ledger's trials in a study in memory, made for each proposal, with all that
Optuna would have shown it: what it and the pruner keep in trials and study among it. So what it
proposes in vain never reaches the ledger. It draws from a seed made of the study's seed and the new
trial's number: what is proposed depends on the ledger alone, not on restarts of the driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.pruners import HyperbandPruner, _filter_study
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from afi_search.cost import Cost, SpaceCosts
from afi_search.search.inherited import Inherited
from afi_search.search.pruners import make_pruner
from afi_search.search.rank import INHERITED
from afi_search.search.samplers import GRID, KNOWN_COST, known_cost_sampler, make_sampler
from afi_search.search.samplers.known_cost import KnownCostSampler
from afi_search.space import Architecture, Space
from afi_search.space.schema import Search
from afi_search.study.ledger import PREDICTION, Proposal, asked_for, directions_of

_ASKS = 3
_DRAWS = 2000
_STUDY_ATTRS = "sampler's study attributes"  # what a sampler has kept in the study, by its trial


class Proposer:
    """Proposes architectures of a space that keep its constraints, each once.

    Args:
        study_name: of the study, by which Optuna's hyperband divides its trials.
        inherited: what the study's supernet says, where there is one; gone by as long as the
            study's own trials do not contradict it.
        evidence: trials of another study of the space, which the sampler learns from.
    """

    def __init__(
        self,
        space: Space,
        costs: SpaceCosts,
        study_name: str | None = None,
        inherited: Inherited | None = None,
        evidence: Sequence[FrozenTrial] = (),
    ) -> None:
        self._space = space
        self._costs = costs
        self._search: Search = space.file.search
        self._name, self._directions = study_name, directions_of(space.file.objectives)
        self._pruner = make_pruner(space.file)
        self._evidence = evidence
        self._trials: dict[int, FrozenTrial] = {}
        self._tried: set[Architecture] = set()
        self._first_left = 0
        self._infeasible: dict[Architecture, Cost] = {}
        self._inherited = inherited
        self._known_cost = self._hinted = None
        if self._search.sampler == KNOWN_COST:
            self._known_cost = self._hinted = known_cost_sampler(space, costs)
            if inherited is not None:
                self._hinted = known_cost_sampler(space, costs, inherited.accuracy)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture that may be tried has been."""
        return self._find_left() == len(self._space) and not any(self._first())

    def learn(self, trial: FrozenTrial) -> None:
        """Learn of a trial of the ledger that has begun, got further or ended."""
        if trial.number not in self._trials:
            self._tried.add(Architecture.parse(trial.user_attrs["architecture"]))
        self._trials[trial.number] = trial

    def propose(self, number: int) -> Proposal | None:
        """Return what the ledger's trial of that number should try, or None if nothing is left.

        The architectures listed first come first. Where the sampler names nothing new, a neighbour
        of what it names is taken, one that differs in one stage, and where those are used up too,
        one is drawn uniformly from what has not been tried.
        """
        if self.exhausted:
            return None
        self._infeasible.clear()
        inherited = self._inherited
        if inherited is not None and not inherited.is_trusted(self._trials.values()):
            inherited = None
        proposal = next(self._first(), None)
        if proposal is None and inherited is not None:
            left = filter(self._is_left, inherited.starting)
            proposal = next((self._known(one, INHERITED) for one in left), None)
        if proposal is None and self._search.sampler == GRID:
            proposal = self._next_after(self._find_left(), GRID)
        if proposal is None:
            sampler = self._known_cost if inherited is None else self._hinted
            proposal = self._suggest(sampler, number) if sampler else self._ask(number)
        if inherited is not None and proposal.origin in (INHERITED, KNOWN_COST):
            weighed = inherited.weighed(proposal.architecture)
            proposal = replace(proposal, system_attrs=proposal.system_attrs | weighed)
        if proposal.architecture in self._space:
            proposal = replace(proposal, init=self._search.init)
        return replace(proposal, infeasible=dict(self._infeasible))

    def _first(self) -> Iterator[Proposal]:
        for architecture in self._space.first_to_try:
            if self._is_candidate(architecture):
                yield self._known(architecture, "first")

    def _suggest(self, sampler: KnownCostSampler, number: int) -> Proposal:
        """Ask the known-cost sampler, which names nothing that was tried or is infeasible."""
        trials = map(_without_curve, self._trials.values())
        suggestion = sampler.suggest([*self._evidence, *trials], self._directions, number)
        if suggestion is None:
            return self._draw(number)
        proposal = self._known(self._space.answered(suggestion.params), KNOWN_COST)
        told = {PREDICTION: list(suggestion.prediction)} if suggestion.prediction else {}
        return replace(proposal, system_attrs=told)

    def _ask(self, number: int) -> Proposal:
        """Ask the sampler; where all it names is known (TPE repeats itself), take a neighbour."""
        study = self._as_optuna()
        storage = study._storage
        before = dict(storage.get_study_system_attrs(study._study_id))
        study.sampler = make_sampler(self._space.file, _seed(self._search, number))
        trial_id = study.ask()._trial_id
        proposal, near = None, dict[Architecture, None]()
        for _ in range(_ASKS):
            trial = storage.get_trial(trial_id)
            question = _Question(study.sampler, _filter_study(study, trial), trial)
            named = self._space.sample(question)
            if self._is_candidate(named):
                proposal = replace(
                    self._known(named, self._search.sampler),
                    params=question.params,
                    distributions=question.distributions,
                )
                break
            near |= dict.fromkeys(self._space.neighbours(named))
        if proposal is None and (left := list(filter(self._is_left, near))):
            random = np.random.default_rng(_seed(self._search, number))
            proposal = self._known(left[int(random.integers(len(left)))], "neighbour")
        after = storage.get_study_system_attrs(study._study_id)
        kept = {k: value for k, value in after.items() if k not in before or before[k] != value}
        return replace(
            proposal or self._draw(number),
            system_attrs={
                **storage.get_trial(trial_id).system_attrs,
                **({_STUDY_ATTRS: kept} if kept else {}),
            },
        )

    def _as_optuna(self) -> Study:
        """Return the study as Optuna would have it, had it run the trials."""
        study = optuna.create_study(
            study_name=self._name,
            directions=self._directions,
            pruner=self._pruner,
            sampler=make_sampler(self._space.file, self._search.seed),
        )
        study._thread_local.in_optimize_loop = True  # some samplers stop it at their end
        if isinstance(self._pruner, HyperbandPruner):  # it has its brackets once it is asked
            self._pruner.prune(study, create_trial(state=TrialState.RUNNING))
        storage, several = study._storage, len(self._directions) > 1
        for trial in (*self._evidence, *self._trials.values()):
            shown, system_attrs = copy(trial), dict(trial.system_attrs)
            for key, value in system_attrs.pop(_STUDY_ATTRS, {}).items():
                storage.set_study_system_attr(study._study_id, key, value)
            shown.system_attrs = system_attrs
            if several:  # Optuna reports no epochs then
                shown.intermediate_values = {}
            shown.state, shown.values = TrialState.RUNNING, None
            shown.datetime_complete = None
            shown = storage.get_trial(storage.create_new_trial(study._study_id, shown))
            if trial.state.is_finished():
                ended = _filter_study(study, shown)
                study.sampler.after_trial(ended, shown, trial.state, trial.values)
                storage.set_trial_state_values(shown._trial_id, trial.state, trial.values)
        return study

    def _draw(self, number: int) -> Proposal:
        """Draw uniformly from what is left; where that is rare, walk from a random place."""
        random = np.random.default_rng(_seed(self._search, number))
        size = len(self._space)
        for index in random.integers(size, size=_DRAWS):
            if self._is_left(architecture := self._space[int(index)]):
                return self._known(architecture, "untried")
        return self._next_after(int(random.integers(size)), "untried")

    def _next_after(self, start: int, origin: str) -> Proposal:
        """Return what is left next in the space's order, from a position on and round."""
        size = len(self._space)
        walk = (self._space[(start + step) % size] for step in range(size))
        return self._known(next(filter(self._is_left, walk)), origin)

    def _is_candidate(self, architecture: Architecture) -> bool:
        """Whether what was named may be tried; what is infeasible is noted."""
        cost = self._costs.of(architecture)
        if not self._costs.allow(cost):
            self._infeasible[architecture] = cost
        return self._is_left(architecture)

    def _is_left(self, architecture: Architecture) -> bool:
        return architecture not in self._tried and self._costs.allow(self._costs.of(architecture))

    def _find_left(self) -> int:
        """Return the position of the first that is left in the space's order, or else its size."""
        while self._first_left < len(self._space) and not self._is_left(
            self._space[self._first_left]
        ):
            self._first_left += 1
        return self._first_left

    def _known(self, architecture: Architecture, origin: str) -> Proposal:
        offered = asked_for(self._space, architecture)
        return Proposal(architecture, self._costs.of(architecture), origin, **offered)


class ListedProposer:
    """Proposes each architecture once a seed, the first seed of all of them first.

    So an interrupted confirmation has something to say of every architecture; `origins` has why
    each is confirmed.
    """

    def __init__(
        self,
        origins: Mapping[Architecture, str],
        seeds: Sequence[int],
        cost: Callable[[Architecture], Cost],
    ) -> None:
        self._origins = origins
        self._cost = cost
        self._left = dict.fromkeys((a, seed) for seed in seeds for a in origins)

    @property
    def exhausted(self) -> bool:
        """Whether every pair has been proposed."""
        return not self._left

    def learn(self, trial: FrozenTrial) -> None:
        """Learn of a trial of the ledger: it is not proposed again."""
        architecture = Architecture.parse(trial.user_attrs["architecture"])
        self._left.pop((architecture, trial.user_attrs["seed"]), None)

    def propose(self, number: int) -> Proposal | None:
        """Return the next pair, whatever number the ledger gives it, or None."""
        if self.exhausted:
            return None
        architecture, seed = next(iter(self._left))
        del self._left[architecture, seed]
        return Proposal(
            architecture, self._cost(architecture), self._origins[architecture], seed=seed
        )


class _Question:
    """Has a sampler answer what a trial would be asked, and enters nothing in its study."""

    def __init__(self, sampler: BaseSampler, study: Study, trial: FrozenTrial) -> None:
        self._sampler = sampler
        self._study = study
        self._trial = trial
        searched = sampler.infer_relative_search_space(study, trial)
        self._together = sampler.sample_relative(study, trial, searched)
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, CategoricalDistribution] = {}

    def suggest_categorical(self, name: str, choices: list[str]) -> str:
        """Return the sampler's choice, and remember it."""
        distribution = CategoricalDistribution(choices)
        if name in self._together:
            answer = self._together[name]
        else:
            answer = self._sampler.sample_independent(self._study, self._trial, name, distribution)
        self.params[name], self.distributions[name] = answer, distribution
        return str(answer)


def _seed(search: Search, number: int) -> int:
    text = f"{search.seed}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _without_curve(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial as the known-cost sampler is shown it: one that runs only takes a place."""
    if trial.state.is_finished():
        return trial
    return create_trial(
        state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions
    )
