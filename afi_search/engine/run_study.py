"""The one function that runs a study's trials, of a search and of a confirmation alike."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial
from ray import tune

from afi_search.cost import CostTable
from afi_search.data import Split, read_data, split_of
from afi_search.data.tensor_source import padded
from afi_search.engine.capacity import Capacity, cluster_nodes, plan_trials, require_shared
from afi_search.engine.loggers import MakeLogger
from afi_search.engine.metrics import StudyMetrics, exported
from afi_search.engine.progress import Hearing
from afi_search.engine.ray_session import RaySession
from afi_search.engine.trial_worker import TrialConfig, TrialWorker
from afi_search.engine.tune import run_workers
from afi_search.search.conductor import Conductor, Proposes
from afi_search.search.listener import Listener
from afi_search.search.pruners import make_pruner
from afi_search.space import SpaceFile
from afi_search.study.checkpoint_retention import CheckpointRetention
from afi_search.study.study import Interrupted, Study


@dataclass(frozen=True)
class Run:
    """One run of the program, which may be one of many of a study.

    The `session` begins when it is first needed; `data` is the folder of the data sets, before the
    study's own.
    """

    session: RaySession
    data: str | None
    listener: Listener

    def images(self, file: SpaceFile) -> Split:
        """Read the images that a space file names, and split them."""
        return split_of(file.data, read_data(file.data, self.data))


def run_trials(
    study: Study,
    proposer: Proposes,
    run: Run,
    *,
    retention: CheckpointRetention | None = None,
    supernet: CostTable | None = None,
    loggers: Sequence[MakeLogger] = (),
) -> None:
    """Run a study's trials, those that wait first, until there is nothing left to try.

    Args:
        study: held by this process.
        retention: deletes checkpoints as trials end; None: all are kept.
        supernet: costs of the architectures whose supernet the trials train, instead of their own.

    Raises:
        Interrupted: a person stopped the run, with Ctrl-C or SIGTERM.
        EngineError: Ray or the machine cannot do what the study asks; its trials wait.
        DataUnavailable, DataCorrupt: the data set cannot be read.
        LedgerError: the data set is another than that of the trials before.
    """
    file, ledger = study.file.space, study.ledger
    listener, session = run.listener, run.session
    hearers: list[Callable[[FrozenTrial], None]] = [listener.trial_changed]
    if retention is not None:
        hearers.append(retention.changed)

    def tell(trial: FrozenTrial) -> None:
        for changed in hearers:
            changed(trial)

    listener.study_opened(study)
    try:
        conductor = Conductor(ledger, file, proposer, make_pruner(file), tell)
        if not conductor.has_next:
            listener.nothing_left()
            return
        gc.freeze()  # collecting need not look through all trials of the ledger
        session.begin()
        metrics = StudyMetrics(ledger.trials(), study.objectives, study.reference_point())
        hearers.append(metrics.changed)
        split = run.images(file)
        ledger.compare_images(figures_of(split))
        images = padded(split, file.recipe.pad)
        dashboard = session.wait()
        with exported(study.name, metrics.samples):
            require_shared(study.checkpoints)
            capacity = plan_trials(file.search, cluster_nodes())
            listener.engine_started(
                dashboard, capacity.concurrency, capacity.threads, capacity.gpus
            )
            common = trial_config(study, capacity, supernet)
            worker = tune.with_resources(
                tune.with_parameters(TrialWorker, common=common, data=images), capacity.resources
            )
            made = [make(study) for make in loggers]
            hearing = Hearing(study.name, lambda: conductor.running, listener.trial_progressed)
            finished = run_workers(conductor, worker, capacity.concurrency, [hearing, *made])
    finally:
        gc.unfreeze()
        listener.run_ended()
    if not finished:
        raise Interrupted(study)


def figures_of(split: Split) -> dict[str, float]:
    """Return figures that tell images from others: how many, their labels, how bright they are."""
    figures: dict[str, float] = {}
    for name, part in (("training", split.train), ("validation", split.validation)):
        labels = zlib.crc32(part.labels.numpy().tobytes())
        figures |= {f"{name} images": len(part), f"checksum of their {name} labels": labels}
        figures[f"mean pixel of {name} images"] = float(part.images.numpy().mean())
    return figures


def trial_config(
    study: Study, capacity: Capacity, supernet: CostTable | None = None
) -> TrialConfig:
    """Return what all workers of a study must know, as `run_trials` takes it."""
    heritage = None if study.supernet is None else study.supernet.trial_checkpoints(0)
    space = study.file.space
    return TrialConfig(space, study.checkpoints, capacity, study.name, supernet, heritage)
