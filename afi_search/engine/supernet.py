"""Training a study's supernet in a Ray worker, as a study of its own in the folder `supernet`."""

from __future__ import annotations

from functools import partial

from optuna.trial import TrialState

from afi_search.cost import SpaceCosts
from afi_search.data import Split, read_data, split_of
from afi_search.engine.capacity import cluster_nodes, plan_trials
from afi_search.engine.ray_session import RaySession
from afi_search.engine.run_study import run_trials
from afi_search.nn import SupernetError
from afi_search.search.cheap_scores import score_cheaply
from afi_search.search.inherited import Inherited, score_architectures
from afi_search.search.listener import Listener
from afi_search.search.proposer import ListedProposer
from afi_search.search.rank import FEWEST, audit, verdict
from afi_search.space import Architecture, SpaceFile
from afi_search.space.schema import Pruner
from afi_search.study.folder import SUPERNET, StudyFile
from afi_search.study.study import Interrupted, Study
from afi_search.train.supernet import Schedule, SupernetJob

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
        images = partial(_images, study.file.space, data)
        cores = partial(_cores, study.file.space, session)
        return Inherited(costs, score_architectures(study, costs, images, listener, cores))
    except KeyboardInterrupt:
        raise Interrupted(study) from None


def audit_scores(study: Study, *, data: str | None, listener: Listener) -> None:
    """Say what the scores of a study have been worth, once it has the trials to tell.

    Args:
        study: held by this process.
        data, listener: as for `run_trials`.
    """
    if study.records()["full"].sum() >= FEWEST:
        score_cheaply(study, partial(_images, study.file.space, data))
        listener.audited(verdict(audit(study)))


def _cores(file: SpaceFile, session: RaySession) -> int:
    session.wait()
    return plan_trials(file.search, cluster_nodes()).threads


def _images(file: SpaceFile, data: str | None) -> Split:
    return split_of(file.data, read_data(file.data, data))


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
    at_once = len(Schedule(costs, file.search.supernet.sampling, file.search.seed)(0))
    listener.supernet_begun(epochs, at_once * epochs / file.recipe.epochs)
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
