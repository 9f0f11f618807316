"""A sampler for searches whose costs are known before anything is trained.

MACs, parameters or latency of a network are arithmetic; its accuracy is what a search pays for.
So only the accuracy is modelled, by a Gaussian process over the choices, and candidates are
compared by the hypervolume that they would add to the front at their known costs, if each were 1.5
standard deviations better than predicted. A trial that was stopped early counts as evidence, with
the uncertainty that full trainings show after that epoch.

What is inside was chosen by playing tables of real trainings: benchmarks/search_quality.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any, NamedTuple

import moocore
import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from threadpoolctl import ThreadpoolController

from afi_search.search.samplers.choice_grid import (
    ChoiceGrid,
    Codes,
    CostOf,
    Floats,
    Params,
    numbers,
)
from afi_search.search.samplers.evidence import Evidence
from afi_search.search.samplers.surrogate import Surrogate
from afi_search.study.ledger import PREDICTION

_CANDIDATES = 512
"""Random points that are compared for a proposal, besides the front's neighbours."""
_OPTIMISM = 1.5
"""Standard deviations that are added to a candidate's mean."""
_EVIDENCE = 256
"""Trials that the model takes into account: the best and the newest."""
_STEPS = 10_000
"""Values of an integer parameter, which are all laid out."""


class Suggestion(NamedTuple):
    """What to try next, and its predicted value: mean and deviation, None where it was drawn."""

    params: dict[str, Any]
    prediction: tuple[float, float] | None


class KnownCostSampler(BaseSampler):
    """Propose what adds most to the front, where all objectives but one are known.

    One objective is learned; `cost_of` gives the others. Nothing is proposed twice while there is
    anything else. A proposal depends on the study's trials, the seed and the trial's number alone,
    so a study that is resumed proposes what it would have proposed. Only trials that begin before
    any has asked for all its parameters are drawn by themselves, and may be alike.

    Args:
        cost_of: parameters -> the values of the study's other objectives, in their order; further
            values only serve `bounds`.
        bounds: the largest value allowed for each value of `cost_of`; None where there is none.
        groups: for parameters that depend on each other: each group lists the combinations of
            parameters of which one is taken. Without groups every parameter is chosen by itself.
        learned: position of the learned objective among the study's.
        hint_of: parameters -> what else is known that may tell of the learned objective, like an
            estimate of it; the model weighs it as it does costs.
        startup: trials drawn at random before the model is asked.
        seed: of all draws; drawn itself where it is None.

    Raises:
        ValueError: at a proposal, where a parameter is neither categorical nor an integer of at
            most 10,000 values, or a function does not return finite numbers.

    Example:
        >>> import optuna
        >>> def macs(params):
        ...     return [params["width"] * params["depth"]]
        >>> def objective(trial):
        ...     width = trial.suggest_int("width", 1, 8)
        ...     depth = trial.suggest_categorical("depth", [20, 32, 44])
        ...     return 1 - 1 / (width + depth), width * depth
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(
        ...     directions=["maximize", "minimize"], sampler=KnownCostSampler(macs, seed=0)
        ... )
        >>> study.optimize(objective, n_trials=20)
        >>> len({tuple(trial.params.items()) for trial in study.trials})
        20
    """

    def __init__(
        self,
        cost_of: CostOf,
        *,
        bounds: Sequence[float | None] = (),
        groups: Sequence[Sequence[Params]] = (),
        learned: int = 0,
        hint_of: CostOf | None = None,
        startup: int = 10,
        seed: int | None = None,
    ) -> None:
        self._cost_of = cost_of
        self._bounds = [(at, bound) for at, bound in enumerate(bounds) if bound is not None]
        self._groups = tuple(tuple(group) for group in groups)
        self._learned = learned
        self._hint_of = hint_of
        self._startup = startup
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._independent = RandomSampler(seed=self._seed)
        self._asked = IntersectionSearchSpace(include_pruned=True)
        self._grid: ChoiceGrid | None = None

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters of the groups, or those that every trial so far was asked for."""
        if self._groups:
            of_groups: dict[str, dict[Any, None]] = {}
            for combination in chain.from_iterable(self._groups):
                for name, value in combination.items():
                    of_groups.setdefault(name, {})[value] = None
            return {n: CategoricalDistribution(list(values)) for n, values in of_groups.items()}
        asked = self._asked.calculate(study)
        if not asked:
            running = (t.distributions for t in study.get_trials(deepcopy=False))
            asked = next(filter(None, running), {})
        for name, distribution in asked.items():
            options_of(name, distribution)
        return dict(sorted(asked.items()))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next trial's parameters; none where none are known or nothing is left."""
        if not search_space:
            return {}
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        suggestion = self.suggest(others, study.directions, trial.number, search_space)
        if suggestion is None:
            return {}
        if suggestion.prediction:
            study._storage.set_trial_system_attr(
                trial._trial_id, PREDICTION, list(suggestion.prediction)
            )
        return suggestion.params

    def suggest(
        self,
        trials: Sequence[FrozenTrial],
        directions: Sequence[StudyDirection],
        number: int,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> Suggestion | None:
        """Return what `sample_relative` does, without a study: what that trial is to try, or None.

        The others are in their order; `search_space` is needed where there are no `groups`.
        """
        signs = [1.0 if each == StudyDirection.MAXIMIZE else -1.0 for each in directions]
        up = signs.pop(self._learned)
        less = -np.array(signs)

        grid, random = (
            self._grid_of(search_space or {}),
            np.random.default_rng([self._seed, number]),
        )
        codes, known = grid.locate(trials)
        tried = {code.tobytes() for code in codes}
        candidates = self._left(grid, grid.draw(random), tried)
        if not candidates:
            return None
        evidence = None
        if trials and len(trials) >= self._startup:
            evidence = Evidence.of(trials, codes, _objectives(known, less), self._learned, up)
        if evidence is None:
            return Suggestion(grid.params(candidates[0]), None)
        candidates += self._left(grid, grid.neighbours(evidence.front(), random), tried)
        cost = _objectives(np.array([grid.cost(code) for code in candidates]), less)
        with _linear_algebra().limit(limits=1):
            chosen, mean, deviation = propose(
                evidence, grid.features, np.array(candidates), cost, self._hints(grid)
            )
        return Suggestion(grid.params(candidates[chosen]), (up * mean, deviation))

    def _hints(self, grid: ChoiceGrid) -> Callable[[Codes], Floats]:
        """Return what gives the hints of points, n x hints."""
        hint_of = self._hint_of
        if hint_of is None:
            return lambda codes: np.empty((len(codes), 0))
        return lambda codes: np.array(
            [numbers("hint_of", hint_of, grid.params(code)) for code in codes]
        )

    def _left(self, grid: ChoiceGrid, codes: Iterable[Codes], tried: set[bytes]) -> list[Codes]:
        """Return the first of the points that are untried and within the bounds."""
        left = (
            code
            for code in codes
            if code.tobytes() not in tried
            and all(grid.cost(code)[at] <= bound for at, bound in self._bounds)
        )
        return list(islice(left, _CANDIDATES))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter uniformly that no trial before was asked for."""
        options_of(param_name, param_distribution)
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _grid_of(self, search_space: Mapping[str, BaseDistribution]) -> ChoiceGrid:
        groups = self._groups or tuple(
            tuple({name: option} for option in options_of(name, distribution))
            for name, distribution in search_space.items()
        )
        if self._grid is None or self._grid.groups != groups:
            scales = [None] * len(groups) if self._groups else map(_scale, search_space.values())
            self._grid = ChoiceGrid(groups, list(scales), self._cost_of)
        return self._grid


@cache
def _linear_algebra() -> ThreadpoolController:
    """Matrices are too small here for several threads, whose number would be in the last digits."""
    return ThreadpoolController().select(user_api="blas")


def _scale(distribution: BaseDistribution) -> Floats | None:
    """Return where the options of an integer parameter stand; None for choices without order."""
    if not isinstance(distribution, IntDistribution):
        return None
    steps = np.array(options_of("", distribution), dtype=float)
    return np.log(steps) if distribution.log else steps


def _objectives(known: Floats, less: Floats) -> Floats:
    """Return those of n x k known values that are objectives, by their signs: less is better."""
    if known.shape[1] < len(less):
        raise ValueError(
            f"cost_of returns {known.shape[1]} values, and the study has {len(less)} objectives "
            f"besides the one that is learned"
        )
    return known[:, : len(less)] * less


def options_of(name: str, distribution: BaseDistribution) -> Sequence[Any]:
    """Return the values of a categorical or integer parameter; others are a ValueError."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        steps = range(distribution.low, distribution.high + 1, distribution.step)
        if len(steps) > _STEPS:
            raise ValueError(
                f"KnownCostSampler takes integers of at most {_STEPS:,} values, and {name} has "
                f"{len(steps):,}; give it a larger step"
            )
        return steps
    raise ValueError(
        f"KnownCostSampler takes categorical and integer parameters, and {name} is a {distribution}"
    )


def propose(
    evidence: Evidence,
    features: Callable[[Codes], Floats],
    candidates: Codes,
    cost: Floats,
    hints: Callable[[Codes], Floats] = lambda codes: np.zeros((len(codes), 0)),
) -> tuple[int, float, float]:
    """Return the candidate that adds most to the front, with its predicted mean and deviation.

    The front is that of predicted means, which sees through the luck of a training, and knows of
    trials that run. Candidates are m x groups, with m x costs, and `hints` gives n x hints.
    """

    def facts(codes: Codes, cost: Floats) -> Floats:
        return np.hstack([cost, hints(codes).reshape(len(codes), -1)])

    known = evidence.strongest(_EVIDENCE)
    surrogate = Surrogate(
        features(known.codes), facts(known.codes, known.cost), known.value, known.variance
    )
    full = known.full
    there = np.concatenate([known.codes[full], known.pending])
    there_cost = np.concatenate([known.cost[full], known.pending_cost])
    reached, _ = surrogate.predict(features(there), facts(there, there_cost))
    mean, deviation = surrogate.predict(features(candidates), facts(candidates, cost))
    front = np.column_stack([-reached, there_cost])
    hoped = np.column_stack([-(mean + _OPTIMISM * deviation), cost])
    low, high = front.min(axis=0), np.maximum(front.max(axis=0), hoped.max(axis=0))
    span = np.where(high > low, high - low, 1.0)
    chosen = best_addition((front - low) / span, (hoped - low) / span)
    return chosen, float(mean[chosen]), float(deviation[chosen])


def best_addition(front: Floats, hoped: Floats) -> int:
    """Return the row of `hoped` that adds most hypervolume, or is nearest to adding any.

    Both are n x objectives, less is better; the front lies between 0 and 1.
    """
    front = np.ascontiguousarray(front[moocore.is_nondominated(front)])
    lag = (hoped[:, None] - front[None]).min(axis=2).max(axis=1)
    reference = [1.1] * front.shape[1]
    gain = np.zeros(len(hoped))
    for row in np.flatnonzero(lag < 0):
        gain[row] = moocore.hypervolume(np.vstack([front, hoped[row]]), ref=reference)
    return int(np.lexsort((-lag, gain))[-1])
