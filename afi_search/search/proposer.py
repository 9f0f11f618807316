"""What to try next: what an Optuna sampler names, or what is nearest to it and not tried yet.

The sampler works on a copy of the study in memory, so that what it proposes in vain never reaches
the ledger, and it draws from a seed made of the study's seed and the new trial's number: what is
proposed depends on the ledger alone, not on how often the driver was restarted. The copy has the
ledger's trials under their numbers, with all that Optuna would have shown the sampler: what it and
the pruner keep in the trials and in the study among it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna import Study
from optuna.distributions import CategoricalDistribution
from optuna.pruners import HyperbandPruner, _filter_study
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from afi_search.cost import Cost, SpaceCosts
from afi_search.search.inherited import Inherited
from afi_search.search.pruners import make_pruner
from afi_search.search.rank import INHERITED
from afi_search.search.samplers import GRID, KNOWN_COST, known_cost_sampler, make_sampler
from afi_search.search.samplers.known_cost import KnownCostSampler
from afi_search.space import Architecture, Space
from afi_search.space.schema import Search
from afi_search.study.ledger import PREDICTION, Proposal, directions_of

_ASKS = 3
_DRAWS = 2000
_STUDY_ATTRS = "sampler's study attributes"  # what a sampler has kept in the study, by its trial


class Proposer:
    """Proposes architectures of a space that keep its constraints, each once.

    Args:
        space: to search.
        costs: of its architectures.
        objectives: of the study.
        study_name: of the study, by which Optuna's hyperband divides its trials.
        inherited: what the study's supernet says, where there is one; gone by as long as the
            study's own trials do not contradict it.
        evidence: trials of another study of the space, which the sampler learns from.
    """

    def __init__(
        self,
        space: Space,
        costs: SpaceCosts,
        objectives: Sequence[str],
        study_name: str | None = None,
        inherited: Inherited | None = None,
        evidence: Sequence[FrozenTrial] = (),
    ) -> None:
        self._space = space
        self._costs = costs
        self._search: Search = space.file.search
        self._memory = InMemoryStorage()
        self._copy = optuna.create_study(
            storage=self._memory,
            pruner=make_pruner(space.file),
            study_name=study_name,
            directions=directions_of(objectives),
        )
        self._copy._thread_local.in_optimize_loop = True  # some samplers stop it at their end
        if isinstance(self._copy.pruner, HyperbandPruner):  # it has its brackets once it is asked
            self._copy.pruner.prune(self._copy, create_trial(state=TrialState.RUNNING))
        self._samples = self._search.sampler not in (GRID, KNOWN_COST)
        if self._samples:
            self._copy.sampler = make_sampler(space.file, self._search.seed)
            for trial in evidence:
                shown = copy(trial)
                shown.intermediate_values = self._shown(trial)
                self._memory.create_new_trial(self._copy._study_id, shown)
        self._evidence = evidence
        self._copied: dict[int, int] = {}
        self._study_attrs: dict[str, Any] = {}
        self._tried: set[Architecture] = set()
        self._first_left = 0
        self._infeasible: dict[Architecture, Cost] = {}
        self._begun: dict[int, FrozenTrial] = {}
        self._inherited = inherited
        self._known_cost = self._known_cost_sampler(None)
        self._hinted = self._known_cost_sampler(inherited)

    @property
    def exhausted(self) -> bool:
        """Whether every architecture that may be tried has been."""
        return self._find_left() == len(self._space) and not any(self._first())

    def learn(self, trial: FrozenTrial) -> None:
        """Learn of a trial of the ledger that has begun, got further or ended."""
        if trial.number not in self._begun:
            architecture = Architecture.parse(trial.user_attrs["architecture"])
            self._begin(trial.number, architecture, trial)
        elif self._samples:
            self._update_copy(trial)
        if trial.state.is_finished():
            self._begun[trial.number] = trial
            if self._samples:
                self._tell(trial)

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
        if inherited is not None and not inherited.is_trusted(self._begun.values()):
            inherited = None
        proposal = next(self._first(), None)
        if proposal is None and inherited is not None:
            left = filter(self._is_left, inherited.starting)
            proposal = next((self._known(one, INHERITED) for one in left), None)
        if proposal is None and self._search.sampler == GRID:
            proposal = self._next_after(self._find_left(), GRID)
        if proposal is None:
            sampler = self._known_cost if inherited is None else self._hinted
            named = self._suggest(sampler, number) if sampler else self._ask(number)
            proposal = named or self._draw(number)
        if inherited is not None and proposal.origin in (INHERITED, KNOWN_COST):
            weighed = inherited.weighed(proposal.architecture)
            proposal = replace(proposal, system_attrs=proposal.system_attrs | weighed)
        if proposal.architecture in self._space:
            proposal = replace(proposal, init=self._search.init)
        if number in self._copied:
            proposal = replace(proposal, system_attrs=self._kept(number))
        self._begin(number, proposal.architecture, proposal)
        return replace(proposal, infeasible=dict(self._infeasible))

    def _first(self) -> Iterator[Proposal]:
        for architecture in self._space.first_to_try:
            if self._is_candidate(architecture):
                yield self._known(architecture, "first")

    def _known_cost_sampler(self, inherited: Inherited | None) -> KnownCostSampler | None:
        if self._search.sampler != KNOWN_COST:
            return None
        hint = None if inherited is None else inherited.accuracy
        return known_cost_sampler(self._space, self._costs, hint)

    def _suggest(self, sampler: KnownCostSampler, number: int) -> Proposal | None:
        """Ask the known-cost sampler, which names nothing that was tried or is infeasible."""
        trials = [*self._evidence, *self._begun.values()]
        suggestion = sampler.suggest(trials, self._copy.directions, number)
        if suggestion is None:
            return None
        proposal = self._known(self._space.answered(suggestion.params), KNOWN_COST)
        if suggestion.prediction is None:
            return proposal
        return replace(proposal, system_attrs={PREDICTION: list(suggestion.prediction)})

    def _ask(self, number: int) -> Proposal | None:
        """Ask the sampler; where all it names is known, take an untried neighbour of that.

        TPE repeats itself on categories: asked again, it names the same architecture.
        """
        random = np.random.default_rng(_seed(self._search, number))
        self._study_attrs = dict(self._memory.get_study_system_attrs(self._copy._study_id))
        self._copy.sampler = make_sampler(self._space.file, _seed(self._search, number))
        self._copied[number] = trial_id = self._copy.ask()._trial_id
        named: dict[Architecture, None] = {}
        for _ in range(_ASKS):
            trial = self._memory.get_trial(trial_id)
            question = _Question(self._copy.sampler, _filter_study(self._copy, trial), trial)
            architecture = self._space.sample(question)
            if self._is_candidate(architecture):
                return Proposal(
                    architecture,
                    self._costs.of(architecture),
                    self._search.sampler,
                    question.params,
                    question.distributions,
                    {},
                )
            named[architecture] = None
        near = dict.fromkeys(other for one in named for other in self._space.neighbours(one))
        left = list(filter(self._is_left, near))
        return self._known(left[int(random.integers(len(left)))], "neighbour") if left else None

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
        answers = self._space.answers(architecture)
        return Proposal(
            architecture,
            self._costs.of(architecture),
            origin,
            {name: value for name, (value, _) in answers.items()},
            {name: CategoricalDistribution(options) for name, (_, options) in answers.items()},
            {},
        )

    def _begin(self, number: int, architecture: Architecture, told: FrozenTrial | Proposal) -> None:
        self._tried.add(architecture)
        begin = partial(
            create_trial,
            state=TrialState.RUNNING,
            params=told.params,
            distributions=dict(told.distributions),
        )
        self._begun[number] = trial = begin(system_attrs=told.system_attrs)
        if not self._samples:
            return
        if number in self._copied:  # the sampler has been asked about it
            for name, distribution in trial.distributions.items():
                answer = distribution.to_internal_repr(trial.params[name])
                self._memory.set_trial_param(self._copied[number], name, answer, distribution)
            return
        system_attrs = dict(told.system_attrs)
        for key, value in system_attrs.pop(_STUDY_ATTRS, {}).items():
            self._memory.set_study_system_attr(self._copy._study_id, key, value)
        if isinstance(told, FrozenTrial):
            trial = told
        template = begin(
            user_attrs=trial.user_attrs,
            system_attrs=system_attrs,
            intermediate_values=self._shown(trial),
        )
        self._copied[number] = self._memory.create_new_trial(self._copy._study_id, template)

    def _kept(self, number: int) -> dict[str, Any]:
        """Return what the sampler has just kept in the copy: in that trial, and in the study."""
        attrs = self._memory.get_study_system_attrs(self._copy._study_id)
        new = _changes(self._study_attrs, attrs)
        kept = self._memory.get_trial(self._copied[number]).system_attrs
        return {**kept, _STUDY_ATTRS: new} if new else kept

    def _update_copy(self, trial: FrozenTrial) -> None:
        copy = self._memory.get_trial(self._copied[trial.number])
        for epoch, accuracy in self._shown(trial).items():
            if epoch not in copy.intermediate_values:
                self._memory.set_trial_intermediate_value(copy._trial_id, epoch, accuracy)
        for key, value in _changes(copy.user_attrs, trial.user_attrs).items():
            self._memory.set_trial_user_attr(copy._trial_id, key, value)
        kept = {key: value for key, value in trial.system_attrs.items() if key != _STUDY_ATTRS}
        for key, value in _changes(copy.system_attrs, kept).items():
            self._memory.set_trial_system_attr(copy._trial_id, key, value)

    def _shown(self, trial: FrozenTrial) -> dict[int, float]:
        """Return the epochs that a sampler is shown: with several objectives none, as in Optuna."""
        return trial.intermediate_values if len(self._copy.directions) == 1 else {}

    def _tell(self, trial: FrozenTrial) -> None:
        copy = self._memory.get_trial(self._copied[trial.number])
        study = _filter_study(self._copy, copy)
        self._copy.sampler.after_trial(study, copy, trial.state, trial.values)
        self._memory.set_trial_state_values(copy._trial_id, trial.state, trial.values)


class ListedProposer:
    """Proposes each architecture once a seed, the first seed of all of them first.

    So an interrupted confirmation has something to say of every architecture.

    Args:
        origins: the architectures, each with why it is confirmed.
        seeds: of each architecture's trainings.
        cost: returns what an architecture costs.
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
            architecture,
            self._cost(architecture),
            self._origins[architecture],
            params={},
            distributions={},
            system_attrs={},
            seed=seed,
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


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    missing = object()
    return {key: value for key, value in after.items() if before.get(key, missing) != value}
