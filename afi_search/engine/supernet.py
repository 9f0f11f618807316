"""A study's supernet in Ray workers: trained as a study of its own, and its architectures scored.

The network is `nn.supernet`'s, what a step trains `train.supernet`'s, and what a search makes of
the scores `search.inherited`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from time import perf_counter
from typing import Any

import ray
import torch
from optuna.trial import TrialState
from ray.exceptions import RayError, RayTaskError

from afi_search.cost import SpaceCosts
from afi_search.data import Split
from afi_search.device import threads
from afi_search.engine.capacity import cluster_nodes, plan_trials
from afi_search.engine.limits import WORKER_DEATHS
from afi_search.engine.ray_session import EngineError
from afi_search.engine.run_study import Run, run_trials, trial_config
from afi_search.engine.trial_worker import TrialConfig, booked_device, settle_in
from afi_search.errors import UserError, last_line
from afi_search.formatting import plural
from afi_search.nn import SupernetError
from afi_search.search.cheap_scores import Score, cheap_batch, cheap_scores, score_cheaply
from afi_search.search.inherited import Inherited, score_architectures
from afi_search.search.proposer import ListedProposer
from afi_search.search.rank import FEWEST, INHERITED, audit, trainings, verdict
from afi_search.space import Architecture, SpaceFile
from afi_search.space.schema import Pruner
from afi_search.study.folder import SUPERNET, StudyFile
from afi_search.study.study import Interrupted, Study

TRAININGS = 2
"""Epochs of a supernet for each of a trial's, unless the space file says how many."""
_SECONDS_TO_DIE = 5


def inherit(
    study: Study,
    costs: SpaceCosts,
    run: Run,
    checkpoints: str,
) -> Inherited:
    """Train a study's supernet and score its architectures, or go on with that; return the scores.

    The study is held by this process; `checkpoints` is where its own were asked to lie. A
    SupernetError says that the supernet could not be trained.
    """
    trained = study.supernet
    try:
        if trained is None or not trained.ledger.trials((TrialState.COMPLETE,)):
            _train(study, costs, run, checkpoints)
        score = partial(scored_by_workers, study, run, INHERITED)
        return Inherited(costs, score_architectures(study, costs, score, run.listener))
    except KeyboardInterrupt:
        raise Interrupted(study) from None


def audit_scores(study: Study, run: Run) -> None:
    """Say what the scores of a study, which this process holds, were worth, if trials can tell."""
    if study.records()["full"].sum() < FEWEST:
        return
    try:
        score_cheaply(study, partial(scored_by_workers, study, run, "cheap"))
    except KeyboardInterrupt:
        raise Interrupted(study) from None
    run.listener.said(verdict(audit(study)))


def scored_by_workers(study: Study, run: Run, kind: str) -> Score:
    """Return what scores architectures in workers, as many as train the study's trials at a time.

    The `kind` of scores is `inherited` or `cheap`. The scores raise what `run_trials` does, too.
    """
    run.session.wait()
    capacity = plan_trials(study.file.space.search, cluster_nodes())
    images = ray.put(run.images(study.file.space))
    in_ray = ray.remote(
        num_cpus=capacity.threads,
        num_gpus=capacity.gpus,
        memory=capacity.resources.get("memory", 0),
        max_restarts=WORKER_DEATHS,
        max_task_retries=WORKER_DEATHS,
    )(_Scorer)
    common = trial_config(study, capacity)
    workers: list[Any] = [in_ray.remote(common, kind) for _ in range(capacity.concurrency)]

    def score(architectures: Sequence[Architecture]) -> Iterator[dict[str, float]]:
        asked = [
            worker.score.remote(architecture, images)
            for architecture, worker in zip(architectures, cycle(workers), strict=False)
        ]
        for architecture, answer in zip(architectures, asked, strict=True):
            try:
                yield ray.get(answer)
            except KeyboardInterrupt:  # or Ray prints a line for each that is still asked
                for worker in workers:
                    ray.kill(worker)
                ray.wait(asked, num_returns=len(asked), timeout=_SECONDS_TO_DIE)
                raise
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from None
                raise EngineError(f"{architecture} cannot be scored: {error.cause!r}") from None
            except RayError as error:
                died = f"a worker that scores architectures died: {last_line(error)}"
                raise EngineError(died) from None

    return score


class _Scorer:
    """Gives scores of architectures; a restarted one takes the images of its first call, too."""

    _scores: Callable[[Architecture], dict[str, float]] | None = None

    def __init__(self, common: TrialConfig, kind: str) -> None:
        self._common, self._kind = common, kind

    def score(self, architecture: Architecture, data: Split) -> dict[str, float]:
        if self._scores is None:
            settle_in(self._common)
            device = booked_device(self._common.capacity.gpus)
            self._scores = _KINDS[self._kind](self._common, data, device)
        begun = perf_counter()
        return {**self._scores(architecture), f"{self._kind}_seconds": perf_counter() - begun}


def _inherited(
    common: TrialConfig, data: Split, device: torch.device
) -> Callable[[Architecture], dict[str, float]]:
    accuracy = common.inherited(data, common.file.recipe.precision, device)
    return lambda architecture: {INHERITED: accuracy(architecture).accuracy}


def _cheap(
    common: TrialConfig, data: Split, device: torch.device
) -> Callable[[Architecture], dict[str, float]]:
    images, labels = cheap_batch(data, device)

    def scores(architecture: Architecture) -> dict[str, float]:
        with threads(1):  # of so few images; more of them wait for each other on a busy machine
            return cheap_scores(architecture, images, labels, num_classes=data.spec.num_classes)

    return scores


_KINDS = {INHERITED: _inherited, "cheap": _cheap}


def _train(study: Study, costs: SpaceCosts, run: Run, checkpoints: str) -> None:
    file = study.file.space
    asked = StudyFile(
        name=f"{study.name}-{SUPERNET}",
        preset="",
        note=f"The supernet of {study.name}; its accuracies are those of one architecture in it.",
        space=supernet_file(file),
        facts=study.file.facts,
        storage=study.file.storage,
        checkpoints=checkpoints,
    )
    epochs = asked.space.recipe.epochs
    cost = max(1, round(trainings(costs.space, epochs)))
    run.listener.said(
        f"First the supernet: {plural(epochs, 'epoch')}, about the cost of "
        f"{plural(cost, 'trial')}. The accuracy shown is of one architecture in it."
    )
    with Study.begin(study.folder / SUPERNET, asked) as training:
        proposer = ListedProposer({shown(costs): SUPERNET}, [file.search.seed], costs.of)
        run_trials(training, proposer, run, supernet=costs.table)
        trial = training.ledger.trial(0)
    if trial.state != TrialState.COMPLETE:
        raise SupernetError(
            f"{training.folder}: the supernet could not be trained: "
            f"{trial.user_attrs.get('reason', trial.state.name)}. Take another recipe or strategy "
            f"under another study name"
        )


def supernet_file(file: SpaceFile) -> SpaceFile:
    """Return the study of a supernet as a space file: one trial, of its own epochs."""
    epochs = file.search.supernet.epochs or TRAININGS * file.recipe.epochs
    search = file.search.given(
        trials=1, pruner=Pruner(), strategy="scratch", init="random", first=()
    )
    changes = {"recipe": file.recipe.given(epochs=epochs), "search": search}
    others = {"objectives": ("accuracy", "macs"), "confirm": None, "promote": None}
    return file.model_copy(update=changes | others)


def shown(costs: SpaceCosts) -> Architecture:
    """Return the architecture whose accuracy tells how the training goes: the first feasible."""
    space = costs.space
    inside = (one for one in (*space.first_to_try, *space.architectures()) if one in space)
    return next(one for one in inside if costs.allow(costs.of(one)))
