"""What a search knows of architectures from its supernet, and how long it goes by that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import moocore
import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState, create_trial

from afi_search.cost import SpaceCosts
from afi_search.search.listener import Listener
from afi_search.search.rank import FREE, INHERITED, beats_what_is_free, rank_table
from afi_search.search.samplers import known_cost_sampler
from afi_search.space import Architecture, Space
from afi_search.space.objective import losses
from afi_search.study.ledger import ESTIMATED, WEIGHED, asked_for, curve, directions_of
from afi_search.study.study import Study

if TYPE_CHECKING:
    from afi_search.search.cheap_scores import Score

PORTION = 32
"""Scores that are entered in the ledger at a time."""

STARTING = 10
"""Architectures that a hybrid search tries before its sampler is asked."""


class Inherited:
    """The accuracies that architectures inherit from a study's supernet.

    `scores` have a row an architecture, by its text, with a column `inherited`.
    """

    def __init__(self, costs: SpaceCosts, scores: pd.DataFrame) -> None:
        self._costs = costs
        self._space = costs.space
        self._scores = scores
        self._verdicts: dict[frozenset[int], bool] = {}
        known = scores[INHERITED].dropna()
        self._accuracies = {str(text): float(score) for text, score in known.items()}

    @cached_property
    def starting(self) -> list[Architecture]:
        """What is to be tried first: the front of inherited accuracy and costs, then the next."""
        scored = list(map(Architecture.parse, self._accuracies))
        file = self._space.file
        table = [
            [-self.accuracy(one), *losses(self._costs.of(one).figures(), file.costs)]
            for one in scored
        ]
        ranks = moocore.pareto_rank(np.array(table))
        order = np.lexsort((np.array(table)[:, 0], ranks)).tolist()
        count = None if file.search.strategy == "supernet" else STARTING
        return [scored[row] for row in order[:count]]

    def accuracy(self, architecture: Architecture) -> float:
        """Return the inherited accuracy, or what the scored ones say of one that has none."""
        known = self._accuracies.get(architecture.text)
        if known is not None:
            return known
        mean, effects = self._effects
        return mean + sum(effects.get(one, 0.0) for one in enumerate(architecture.stages))

    def weighed(self, architecture: Architecture) -> dict[str, float]:
        """Return that accuracy under the name by which a trial remembers where it is from."""
        name = WEIGHED if architecture.text in self._accuracies else ESTIMATED
        return {name: self.accuracy(architecture)}

    def is_trusted(self, trials: Iterable[FrozenTrial]) -> bool:
        """Whether the full trials do not contradict the scores, as `rank.audit` judges them."""
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        numbers = frozenset(trial.number for trial in complete)
        if numbers not in self._verdicts:
            rows = [{**trial.user_attrs, "accuracy": curve(trial)[-1]} for trial in complete]
            full = pd.DataFrame(rows, columns=["architecture", *FREE, "accuracy"])
            full = full.drop_duplicates("architecture").set_index("architecture")
            table = rank_table(full[[*FREE]].join(self._scores[[INHERITED]]), full["accuracy"])
            self._verdicts = {numbers: beats_what_is_free(table) is not False}
        return self._verdicts[numbers]

    @cached_property
    def _effects(self) -> tuple[float, dict[tuple[int, object], float]]:
        """Return the mean of the scores, and what each stage's choice adds to it on average."""
        scored = [Architecture.parse(text).stages for text in self._accuracies]
        choices = list(dict.fromkeys(one for stages in scored for one in enumerate(stages)))
        design = np.array([[stages[n] == choice for n, choice in choices] for stages in scored])
        values = np.array(list(self._accuracies.values()))
        effects = np.linalg.lstsq(design.astype(float), values - values.mean(), rcond=None)[0]
        return float(values.mean()), dict(zip(choices, effects.tolist(), strict=True))


def score_architectures(
    study: Study, costs: SpaceCosts, score: Callable[[], Score], listener: Listener
) -> pd.DataFrame:
    """Enter the inherited accuracies of a study's architectures in its ledger; return all scores.

    All that keep the constraints are scored where they are no more than `search.supernet.scores`;
    otherwise that many, proposed by the known-cost sampler, which learns from the scores. The study
    is held by this process, its supernet trained; `score` is called where some are to score.
    """
    ledger, limit = study.ledger, study.file.space.search.supernet.scores
    entered = ledger.scores().get(INHERITED, pd.Series(dtype=float)).dropna()
    known = {Architecture.parse(str(text)): float(value) for text, value in entered.items()}
    total = min(limit, costs.feasible or limit)
    if len(known) >= total:
        return ledger.scores()
    scores_of = score()
    batches = _all_left if total == costs.feasible else _proposed

    def scored() -> Iterator[tuple[Architecture, dict[str, float]]]:
        for some in batches(costs, known):
            batch = some[: total - len(known)]
            for architecture, scores in zip(batch, scores_of(batch), strict=True):
                known[architecture] = scores[INHERITED]
                yield architecture, scores
            if len(known) >= total:
                return

    all_scored = scored()
    while portion := dict(islice(all_scored, PORTION)):
        ledger.note_scores(portion)
        listener.scored(len(known), total)
    return ledger.scores()


def _all_left(costs: SpaceCosts, known: dict[Architecture, float]) -> Iterator[list[Architecture]]:
    left = (one for one in costs.space.architectures() if one not in known)
    yield [one for one in left if costs.allow(costs.of(one))]


def _proposed(costs: SpaceCosts, known: dict[Architecture, float]) -> Iterator[list[Architecture]]:
    """Yield what the known-cost sampler proposes, portions of it, given what is known by then."""
    space = costs.space
    sampler, directions = known_cost_sampler(space, costs), directions_of(space.file.objectives)
    while True:
        trials = [_scored_trial(space, costs, *one) for one in known.items()]
        batch: list[Architecture] = []
        while len(batch) < PORTION:
            suggestion = sampler.suggest(trials, directions, len(trials))
            if suggestion is None:
                break
            batch.append(space.answered(suggestion.params))
            asked = asked_for(space, batch[-1])
            trials.append(create_trial(state=TrialState.RUNNING, **asked))
        if not batch:
            return
        yield batch


def _scored_trial(
    space: Space, costs: SpaceCosts, architecture: Architecture, score: float
) -> FrozenTrial:
    facts = {**costs.of(architecture).figures(), "accuracy": score}
    return create_trial(
        values=[float(facts[name]) for name in space.file.objectives],
        **asked_for(space, architecture),
    )
