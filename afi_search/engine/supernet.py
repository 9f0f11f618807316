"""A study's supernet in Ray workers: trained as a study of its own, and its architectures scored.

The network is `nn.supernet`'s, what a step trains `train.supernet`'s, and what a search makes of
the scores `search.inherited`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import cycle
from time import perf_counter

import ray
import torch
from optuna.trial import TrialState
from ray.exceptions import RayError, RayTaskError

from afi_search.cost import SpaceCosts
from afi_search.data import Split, read_data, split_of
from afi_search.data.source import Batch
from afi_search.device import threads
from afi_search.engine.capacity import cluster_nodes, plan_trials
from afi_search.engine.ray_session import EngineError, RaySession
from afi_search.engine.run_study import run_trials, trial_config
from afi_search.engine.trial_worker import SharedSplit, TrialConfig, booked_device, settle_in
from afi_search.errors import UserError
from afi_search.nn import SupernetError
from afi_search.search.cheap_scores import Score, cheap_batch, cheap_scores, score_cheaply
from afi_search.search.inherited import Inherited, score_architectures
from afi_search.search.listener import Listener
from afi_search.search.proposer import ListedProposer
from afi_search.search.rank import FEWEST, INHERITED, audit, trainings, verdict
from afi_search.space import Architecture, SpaceFile
from afi_search.space.schema import Pruner
from afi_search.study.folder import SUPERNET, StudyFile
from afi_search.study.study import Interrupted, Study
from afi_search.train.supernet import InheritedAccuracy, SupernetJob

_WORKER_DEATHS = 3
TRAININGS = 2
"""Epochs of a supernet for each of a trial's, unless the space file says how many."""


def inherit(
    study: Study,
    costs: SpaceCosts,
    session: RaySession,
    checkpoints: str,
    *,
    data: str | None = None,
    listener: Listener | None = None,
) -> Inherited:
    """Train a study's supernet and score its architectures, or go on with that; return the scores.

    Args:
        study: held by this process.
        costs: of its architectures.
        session: Ray, which begins now unless it has begun.
        checkpoints: where the study's were asked to lie.
        data, listener: as for `run_trials`.

    Raises:
        Interrupted, EngineError, DataUnavailable, DataCorrupt: as `run_trials`.
        SupernetError: the supernet could not be trained.
    """
    trained, listener = study.supernet, listener or Listener()
    try:
        if trained is None or not trained.ledger.trials((TrialState.COMPLETE,)):
            _train(study, costs, session, checkpoints, data, listener)
        score = partial(scored_by_workers, study, session, data, "inherited")
        return Inherited(costs, score_architectures(study, costs, score, listener))
    except KeyboardInterrupt:
        raise Interrupted(study) from None


def audit_scores(
    study: Study, session: RaySession, *, data: str | None, listener: Listener
) -> None:
    """Say what the scores of a study have been worth, once it has the trials to tell.

    Args:
        study: held by this process.
        session: Ray, which begins now unless it has begun or there is nothing to score.
        data, listener: as for `run_trials`.

    Raises:
        Interrupted, EngineError, DataUnavailable, DataCorrupt: as `run_trials`.
    """
    if study.records()["full"].sum() < FEWEST:
        return
    try:
        score_cheaply(study, partial(scored_by_workers, study, session, data, "cheap"))
    except KeyboardInterrupt:
        raise Interrupted(study) from None
    listener.audited(verdict(audit(study)))


def scored_by_workers(study: Study, session: RaySession, data: str | None, kind: str) -> Score:
    """Return what scores architectures in workers, as many as train the study's trials at a time.

    Args:
        study: with a supernet, if it is to be `inherited` from.
        session: which begins now unless it has begun.
        data: the folder of the data sets, before the study's own.
        kind: of scores: `inherited` or `cheap`.

    Raises:
        EngineError, DataUnavailable, DataCorrupt: as `run_trials`; the scores, too.
    """
    session.wait()
    file = study.file.space
    capacity = plan_trials(file.search, cluster_nodes())
    images = ray.put(SharedSplit(split_of(file.data, read_data(file.data, data)), pad=0))
    in_ray = ray.remote(
        num_cpus=capacity.threads,
        num_gpus=capacity.gpus,
        memory=capacity.resources.get("memory", 0),
        max_restarts=_WORKER_DEATHS,
        max_task_retries=_WORKER_DEATHS,
    )(_Scorer)
    common = trial_config(study, capacity)
    workers = [in_ray.remote(common) for _ in range(capacity.concurrency)]

    def score(architectures: Sequence[Architecture]) -> Iterator[dict[str, float]]:
        asked = [
            getattr(worker, kind).remote(architecture, images)
            for architecture, worker in zip(architectures, cycle(workers), strict=False)
        ]
        for architecture, answer in zip(architectures, asked, strict=True):
            try:
                yield ray.get(answer)
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from None
                raise EngineError(f"{architecture} cannot be scored: {error.cause!r}") from None
            except RayError as error:
                reason = str(error).strip().splitlines()[-1]
                raise EngineError(f"a worker that scores architectures died: {reason}") from None

    return score


class _Scorer:
    """Gives the scores of architectures, and the seconds that they took.

    The images come with each call and are taken from the first, so that one that is restarted has
    them, too.
    """

    def __init__(self, common: TrialConfig) -> None:
        self._common = common
        self._data: Split | None = None

    def inherited(self, architecture: Architecture, data: SharedSplit) -> dict[str, float]:
        self._data = self._data or data.tensors()
        accuracy, begun = self._accuracy, perf_counter()
        score = accuracy(architecture).accuracy
        return {INHERITED: score, "inherited_seconds": perf_counter() - begun}

    def cheap(self, architecture: Architecture, data: SharedSplit) -> dict[str, float]:
        self._data = self._data or data.tensors()
        (images, labels), begun = self._batch, perf_counter()
        classes = self._data.spec.num_classes
        with threads(1):  # of so few images; more of them wait for each other on a busy machine
            scores = cheap_scores(architecture, images, labels, num_classes=classes)
        return {**scores, "cheap_seconds": perf_counter() - begun}

    @cached_property
    def _device(self) -> torch.device:
        settle_in(self._common)
        return booked_device(self._common)

    @cached_property
    def _batch(self) -> Batch:
        assert self._data is not None
        return cheap_batch(self._data, self._device)

    @cached_property
    def _accuracy(self) -> InheritedAccuracy:
        assert self._common.heritage is not None and self._data is not None
        device, precision = self._device, self._common.recipe.precision
        return self._common.heritage.accuracy(self._data, precision=precision, device=device)


def _train(
    study: Study,
    costs: SpaceCosts,
    session: RaySession,
    checkpoints: str,
    data: str | None,
    listener: Listener,
) -> None:
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
    job = SupernetJob(file, costs.table)
    epochs = asked.space.recipe.epochs
    listener.supernet_begun(epochs, trainings(costs.space, epochs))
    with Study.begin(study.folder / SUPERNET, asked) as training:
        proposer = ListedProposer({shown(costs): SUPERNET}, [file.search.seed], costs.of)
        run_trials(training, proposer, session, data=data, listener=listener, supernet=job)
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
    search = {
        "trials": 1,
        "pruner": Pruner(),
        "strategy": "scratch",
        "init": "random",
        "first": (),
    }
    return file.model_copy(
        update={
            "objectives": ("accuracy", "macs"),
            "recipe": file.recipe.model_copy(update={"epochs": epochs}),
            "search": file.search.model_copy(update=search),
            "confirm": None,
            "promote": None,
        }
    )


def shown(costs: SpaceCosts) -> Architecture:
    """Return the architecture whose accuracy tells how the training goes: the first feasible."""
    space = costs.space
    inside = (one for one in (*space.first_to_try, *space.architectures()) if one in space)
    return next(one for one in inside if costs.allow(costs.of(one)))
