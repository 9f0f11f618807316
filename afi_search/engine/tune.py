"""Ray Tune as the engine: it only places, feeds and stops the worker actors.

All decisions are the conductor's, on the ledger; Tune's own experiment state goes to a temporary
folder and is deleted.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from afi_search.engine.ray_session import EngineError
from afi_search.engine.stopping import StopRequest, asked_to_stop
from afi_search.engine.trial_worker import config_of
from afi_search.search.conductor import Conductor

_WORKER_DEATHS = 3
_SECONDS_TO_ANSWER = 30.0
_SECONDS_TO_END_AN_EPOCH = 2.0


def run_workers(
    conductor: Conductor, worker: Any, concurrency: int, callbacks: Sequence[tune.Callback] = ()
) -> bool:
    """Run all trials that the conductor assigns in workers of any kind.

    Args:
        conductor: decides.
        worker: a Tune trainable that takes what `config_of` gives and reports as `TrialWorker`
            does, with its resources.
        concurrency: trials at a time.
        callbacks: Tune's, as it runs.

    Returns:
        Whether the study went to its end; False when it was interrupted (Ctrl-C or SIGTERM), its
        running trials then waiting in the ledger.

    Raises:
        EngineError: a worker reported what is `broken`, none could be set up, or the cluster is
            gone; the running trials wait.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it tells is in the ledger
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency)  # that all workers start together
    workers = _Workers()
    with (
        asked_to_stop(workers.end_soon) as stop,
        tempfile.TemporaryDirectory(prefix="afi_search-") as scratch,
    ):
        # Not tune.Tuner, which pickles the searcher to restore it: the ledger does that here.
        try:
            tune.run(
                worker,
                name="trials",
                search_alg=_LedgerSearcher(conductor, concurrency, stop, deaths := Deaths()),
                scheduler=_LedgerScheduler(conductor, stop, deaths, workers),
                num_samples=-1,
                stop=_Interrupted(stop),
                reuse_actors=True,
                callbacks=list(callbacks),
                max_failures=_WORKER_DEATHS,
                storage_path=scratch,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                raise_on_failed_trial=False,
                verbose=0,
            )
        except RuntimeError as error:  # Tune knows no worker that Ray ends where memory is short
            if not isinstance(error.__cause__, RayError):
                raise
            stop.break_off(str(error.__cause__).split(". ")[0])
    with stop.if_the_ledger_fails():
        conductor.interrupt()
    if stop.reason:
        raise EngineError(
            f"{stop.reason}. Nothing is lost: mend it, and the same command resumes the study."
        )
    return not stop.asked


@dataclass
class Deaths:
    """What is known of the workers that died in this run.

    Attributes:
        causes: of the last death, by trial.
        a_worker_has_reported: whether any worker got as far as to report.
    """

    causes: dict[int, str] = field(default_factory=dict)
    a_worker_has_reported: bool = False


class _Workers:
    """The actors of a run; when it is to stop, Tune would wait ten seconds for what they are at."""

    controller: Any = None

    def end_soon(self) -> None:
        """Give them the time to end an epoch that is nearly over, and end them."""
        time.sleep(_SECONDS_TO_END_AN_EPOCH)
        if self.controller is not None:
            alive = self.controller._actor_manager._live_actors_to_ray_actors_resources
            for actor, _ in list(alive.values()):
                ray.kill(actor)


class _LedgerSearcher(Searcher):
    """Hands the conductor's assignments to Tune, no more at a time than there is room for."""

    def __init__(
        self, conductor: Conductor, concurrency: int, stop: StopRequest, deaths: Deaths
    ) -> None:
        super().__init__()
        self._conductor = conductor
        self._concurrency = concurrency
        self._stop = stop
        self._deaths = deaths
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._stop.asked or not self._conductor.has_next:
            return Searcher.FINISHED
        if len(self._conductor.running) >= self._concurrency:
            return None
        assignment = None
        with self._stop.if_the_ledger_fails():
            assignment = self._conductor.next()
        if assignment is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = assignment.number
        return config_of(assignment)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Judge what Tune has given up: it is the trial's fault, or the machine's."""
        number = self._numbers.pop(trial_id)
        if not error or self._stop.asked or number not in self._conductor.running:
            return
        cause = self._deaths.causes.get(number, "unknown")
        if not self._deaths.a_worker_has_reported:
            self._stop.break_off(f"no worker could be set up: {cause}")
        elif not _cluster_answers():
            self._stop.break_off(f"Ray's cluster is gone: {cause}")
        else:
            with self._stop.if_the_ledger_fails():
                self._conductor.fail(number, f"its workers died, again and again: {cause}")

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is the state."""


class _LedgerScheduler(FIFOScheduler):
    """Passes each result and each worker's death to the conductor, and its answer to Tune."""

    _supports_buffered_results = False

    def __init__(
        self, conductor: Conductor, stop: StopRequest, deaths: Deaths, workers: _Workers
    ) -> None:
        super().__init__()
        self._workers = workers
        self._conductor = conductor
        self._stop = stop
        self._deaths = deaths

    def on_trial_add(self, tune_controller: object, trial: object) -> None:
        """Note who has the actors."""
        self._workers.controller = tune_controller

    def on_trial_result(
        self, tune_controller: object, trial: object, result: dict[str, Any]
    ) -> str:
        self._deaths.a_worker_has_reported = True
        continues = False
        with self._stop.if_the_ledger_fails():
            continues = self._take(result)
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: object, trial: Any) -> None:
        """Note a worker's death, and its cause."""
        if self._stop.asked:
            return
        number = trial.config["number"]
        self._deaths.causes[number] = _why(trial)
        if number in self._conductor.running:
            with self._stop.if_the_ledger_fails():
                self._conductor.lose_worker(number, self._deaths.causes[number])

    def _take(self, result: dict[str, Any]) -> bool:
        """Tell the conductor of a result; return whether the trial continues."""
        number = result["number"]
        if "broken" in result:
            self._stop.break_off(result["broken"])
            return False
        if "failed" in result:
            self._conductor.fail(number, result["failed"], result["details"])
            return False
        return not self._conductor.report(number, result["accuracies"], result["seconds"])


@ray.remote(num_cpus=0)
def _answer() -> bool:
    return True


def _cluster_answers() -> bool:
    try:
        return bool(ray.get(_answer.remote(), timeout=_SECONDS_TO_ANSWER))
    except (RayError, TimeoutError):
        return False


def _why(trial: Any) -> str:
    """Return the last line of what Tune noted of a trial's last error, on this machine."""
    lines = (
        Path(trial.error_file).read_text(encoding="utf-8").split("\n") if trial.error_file else []
    )
    return next((line.strip() for line in reversed(lines) if line.strip()), "unknown")


class _Interrupted(tune.Stopper):
    """Stops everything once that is asked for."""

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.asked


def _trial_name(trial: Any) -> str:
    return f"{trial.config['number']:05d}"
