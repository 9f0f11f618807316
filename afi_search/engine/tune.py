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
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from afi_search.engine.limits import WORKER_DEATHS
from afi_search.engine.ray_session import EngineError
from afi_search.errors import last_line
from afi_search.search.conductor import Conductor
from afi_search.search.stopping import StopRequest

_SECONDS_TO_ANSWER = 30.0
_SECONDS_TO_END_AN_EPOCH = 2.0


def run_workers(
    conductor: Conductor, worker: Any, concurrency: int, callbacks: Sequence[tune.Callback] = ()
) -> bool:
    """Run all trials that the conductor assigns in workers of any kind.

    Args:
        worker: a Tune trainable that takes and reports what `TrialWorker` does, with its resources.

    Returns:
        Whether the study went to its end; False when it was interrupted (Ctrl-C or SIGTERM), its
        running trials then waiting in the ledger.

    Raises:
        EngineError: a worker reported what is `broken`, none could be set up, or the cluster is
            gone; the running trials wait.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it tells is in the ledger
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrency)  # that all workers start together
    shared = _Shared(conductor, concurrency)
    with shared.stop.on_signals(), tempfile.TemporaryDirectory(prefix="afi_search-") as scratch:
        # Not tune.Tuner, which pickles the searcher to restore it: the ledger does that here.
        try:
            tune.run(
                worker,
                name="trials",
                search_alg=_LedgerSearcher(shared),
                scheduler=_LedgerScheduler(shared),
                num_samples=-1,
                stop=_Stopper(shared),
                reuse_actors=True,
                callbacks=list(callbacks),
                max_failures=WORKER_DEATHS,
                storage_path=scratch,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
                raise_on_failed_trial=False,
                verbose=0,
            )
        except RuntimeError as error:  # Tune knows no worker that Ray ends where memory is short
            if not isinstance(error.__cause__, RayError):
                raise
            shared.stop.break_off(str(error.__cause__).split(". ")[0])
    with shared.stop.if_the_ledger_fails():
        conductor.interrupt()
    if reason := shared.stop.reason:
        raise EngineError(
            f"{reason}. Nothing is lost: mend it, and the same command resumes the study."
        )
    return not shared.stop.asked


class _Shared:
    """What the searcher, the scheduler and the stopper that Tune is given all go by."""

    def __init__(self, conductor: Conductor, concurrency: int) -> None:
        self.conductor = conductor
        self.concurrency = concurrency
        self.stop = StopRequest(self.end_workers_soon)
        self.causes: dict[int, str] = {}  # of the last death of a worker, by trial
        self.a_worker_has_reported = False
        self.controller: Any = None  # Tune's, which has the actors

    def __getstate__(self) -> dict[str, Any]:
        """Leave all out: Tune pickles its stopper, for an experiment that nobody restores."""
        return {}

    def end_workers_soon(self) -> None:
        """Give them the time to end an epoch that is nearly over; Tune would wait ten seconds."""
        time.sleep(_SECONDS_TO_END_AN_EPOCH)
        if self.controller is not None:
            alive = self.controller._actor_manager._live_actors_to_ray_actors_resources
            for actor, _ in list(alive.values()):
                ray.kill(actor)


class _LedgerSearcher(Searcher):
    """Hands the conductor's assignments to Tune, no more at a time than there is room for."""

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        conductor, stop = self._shared.conductor, self._shared.stop
        if stop.asked or not conductor.has_next:
            return Searcher.FINISHED
        if len(conductor.running) >= self._shared.concurrency:
            return None
        assignment = None
        with stop.if_the_ledger_fails():
            assignment = conductor.next()
        if assignment is None:
            return Searcher.FINISHED
        self._numbers[trial_id] = assignment.number
        return {**vars(assignment), "architecture": assignment.architecture.text}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Judge what Tune has given up: it is the trial's fault, or the machine's."""
        number, conductor, stop = (
            self._numbers.pop(trial_id),
            self._shared.conductor,
            self._shared.stop,
        )
        if not error or stop.asked or number not in conductor.running:
            return
        cause = self._shared.causes.get(number, "unknown")
        if not self._shared.a_worker_has_reported:
            stop.break_off(f"no worker could be set up: {cause}")
        elif not _cluster_answers():
            stop.break_off(f"Ray's cluster is gone: {cause}")
        else:
            with stop.if_the_ledger_fails():
                conductor.fail(number, f"its workers died, again and again: {cause}")

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is the state."""


class _LedgerScheduler(FIFOScheduler):
    """Passes each result and each worker's death to the conductor, and its answer to Tune."""

    _supports_buffered_results = False

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self._shared = shared

    def on_trial_add(self, tune_controller: object, trial: object) -> None:
        """Note who has the actors."""
        self._shared.controller = tune_controller

    def on_trial_result(
        self, tune_controller: object, trial: object, result: dict[str, Any]
    ) -> str:
        """Tell the conductor; what a worker calls broken ends the run."""
        conductor, stop, number = self._shared.conductor, self._shared.stop, result["number"]
        self._shared.a_worker_has_reported, ends = True, True
        with stop.if_the_ledger_fails():
            if "broken" in result:
                stop.break_off(result["broken"])
            elif "failed" in result:
                conductor.fail(number, result["failed"], result["details"])
            else:
                ends = conductor.report(number, result["accuracies"], result["seconds"])
        return str(TrialScheduler.STOP if ends else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: object, trial: Any) -> None:
        """Note a worker's death, and its cause."""
        number, conductor, stop = trial.config["number"], self._shared.conductor, self._shared.stop
        if stop.asked:
            return
        self._shared.causes[number] = _why(trial)
        if number in conductor.running:
            with stop.if_the_ledger_fails():
                conductor.lose_worker(number, self._shared.causes[number])


class _Stopper(tune.Stopper):
    """Stops everything once that is asked for."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._shared.stop.asked


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
    told = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    return last_line(told.strip() or "unknown")


def _trial_name(trial: Any) -> str:
    return f"{trial.config['number']:05d}"
