"""Ray Tune as the engine: it starts, feeds and stops workers, and decides nothing.

Every decision is the conductor's, on the ledger; what Tune would keep for itself is thrown away.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from afi_search.errors import UserError
from afi_search.search.conductor import Conductor
from afi_search.search.worker import Job, SharedSplit, TrialWorker, config_of
from afi_search.space.schema import Search

_WORKER_DEATHS = 3
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}


class EngineError(UserError):
    """Ray or the machine cannot do what the study asks of it."""


@dataclass(frozen=True)
class Capacity:
    """How many trials run at a time, and what each of them gets.

    Attributes:
        concurrency: trials at a time.
        threads: CPU cores of each.
        gpus: share of a GPU of each; 0 where there is none.
    """

    concurrency: int
    threads: int
    gpus: float


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has."""

    cpus: int
    gpus: int


def plan_capacity(search: Search, nodes: Sequence[Node]) -> Capacity:
    """Share out the cores and GPUs of the nodes, so that a trial fits on every one that it may use.

    Where there are GPUs, only nodes with GPUs are used.
    """
    hosts = [node for node in nodes if node.gpus] or list(nodes)
    cpus, gpus = sum(node.cpus for node in hosts), sum(node.gpus for node in hosts)
    share = search.gpus_per_trial if gpus else 0.0
    room = sum(int(node.gpus / share) for node in hosts) if gpus else cpus
    if search.concurrency != "auto":
        room = min(room, search.concurrency)
    concurrency = max(1, min(room, cpus, search.trials))
    on_a_node = -(-concurrency // len(hosts))
    threads = max(1, min(node.cpus for node in hosts) // on_a_node)
    return Capacity(concurrency, threads, share)


@contextmanager
def ray_session(address: str | None = None) -> Iterator[str]:
    """Start Ray on this machine, or join a cluster; yield the dashboard's address.

    Raises:
        EngineError: there is no cluster at the address.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _ENVIRONMENT.items()})
    try:
        context = ray.init(
            address=address,
            include_dashboard=None if address else True,
            logging_level=logging.ERROR,
            log_to_driver=False,
            configure_logging=True,
        )
    except ConnectionError as error:
        raise EngineError(
            f"--address {address}: there is no Ray cluster to join: {error}"
        ) from None
    try:
        yield context.dashboard_url or ""
    finally:
        ray.shutdown()


def cluster_nodes() -> list[Node]:
    """Return the machines of the Ray session that can compute: not a head that only manages."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [Node(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in alive]
    return [node for node in nodes if node.cpus]


def cluster_capacity(search: Search) -> Capacity:
    """Share out what the Ray session has."""
    return plan_capacity(search, cluster_nodes() or [Node(1, 0)])


def run_trials(conductor: Conductor, job: Job, data: SharedSplit, capacity: Capacity) -> bool:
    """Run all trials that the conductor assigns.

    Returns:
        Whether the study went to its end; False when it was interrupted (Ctrl-C or SIGTERM), its
        running trials then waiting in the ledger.

    Raises:
        EngineError: checkpoints cannot be written; the running trials wait as well.
    """
    worker = tune.with_resources(
        tune.with_parameters(TrialWorker, job=job, data=data),
        {"cpu": job.threads, "gpu": capacity.gpus},
    )
    return run_workers(conductor, worker, capacity.concurrency)


def run_workers(conductor: Conductor, worker: Any, concurrency: int) -> bool:
    """Run all trials that the conductor assigns in workers of any kind.

    Args:
        conductor: decides.
        worker: a Tune trainable that takes what `config_of` gives and reports as `TrialWorker`
            does, with its resources.
        concurrency: trials at a time.

    Returns:
        As `run_trials` does.

    Raises:
        EngineError: a worker reported what is `broken`; the running trials wait.
    """
    with _asked_to_stop() as stop, tempfile.TemporaryDirectory(prefix="afi_search-") as scratch:
        # Not tune.Tuner, which pickles the searcher to restore it: the ledger does that here.
        tune.run(
            worker,
            name="trials",
            search_alg=_LedgerSearcher(conductor, concurrency, stop),
            scheduler=_LedgerScheduler(conductor, stop),
            num_samples=-1,
            stop=_Interrupted(stop),
            reuse_actors=True,
            max_failures=_WORKER_DEATHS,
            storage_path=scratch,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            raise_on_failed_trial=False,
            verbose=0,
        )
    conductor.interrupt()
    if stop.reason:
        raise EngineError(f"{stop.reason}. Nothing is lost: mend it, and the same command goes on.")
    return not stop.asked


@dataclass
class StopRequest:
    """Whether the run is to stop, and the reason where it is not a person's wish."""

    asked: bool = False
    reason: str = ""


class _LedgerSearcher(Searcher):
    """Hands the conductor's assignments to Tune, no more at a time than there is room for."""

    def __init__(self, conductor: Conductor, concurrency: int, stop: StopRequest) -> None:
        super().__init__()
        self._conductor = conductor
        self._concurrency = concurrency
        self._stop = stop
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._stop.asked or not self._conductor.has_next:
            return Searcher.FINISHED
        if len(self._conductor.running) >= self._concurrency:
            return None
        assignment = self._conductor.next()
        if assignment is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = assignment.number
        return config_of(assignment)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        number = self._numbers.pop(trial_id)
        if error and number in self._conductor.running:
            self._conductor.fail(
                number,
                f"its worker died or could not be set up, {_WORKER_DEATHS + 1} times",
            )

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is the state."""


class _LedgerScheduler(FIFOScheduler):
    """Passes each result to the conductor, and its answer to Tune."""

    _supports_buffered_results = False

    def __init__(self, conductor: Conductor, stop: StopRequest) -> None:
        super().__init__()
        self._conductor = conductor
        self._stop = stop

    def on_trial_result(
        self, tune_controller: object, trial: object, result: dict[str, Any]
    ) -> str:
        number = result["number"]
        if "broken" in result:
            self._stop.asked, self._stop.reason = True, result["broken"]
            return str(TrialScheduler.STOP)
        if "failed" in result:
            self._conductor.fail(number, result["failed"], result["details"])
            return str(TrialScheduler.STOP)
        ends = self._conductor.report(number, result["accuracies"], result["seconds"])
        return str(TrialScheduler.STOP if ends else TrialScheduler.CONTINUE)


class _Interrupted(tune.Stopper):
    """Stops everything once that is asked for."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.asked


@contextmanager
def _asked_to_stop() -> Iterator[StopRequest]:
    """Yield a request that Ctrl-C and SIGTERM make; a second Ctrl-C interrupts at once."""
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _trial_name(trial: Any) -> str:
    return f"{trial.config['number']:05d}"
