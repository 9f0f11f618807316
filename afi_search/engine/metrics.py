"""What a running study tells Prometheus, by way of Ray.

Every node of a Ray cluster shows its gauges on its metrics port; `METRICS` names ours. The driver
tells the study's, each worker its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from optuna.trial import FrozenTrial, TrialState
from ray.util.metrics import Gauge

from afi_search.study.ledger import STATE_WORDS
from afi_search.study.pareto import dominated_share, front_size, front_trials, trial_points
from afi_search.train.trainer import EpochResult


class Metric(NamedTuple):
    """A gauge: what it means, with its unit, and its labels besides `study` and Ray's own."""

    meaning: str
    tags: tuple[str, ...] = ()


METRICS = {
    "afi_trials": Metric(
        f"Trials of the study by state: {', '.join(STATE_WORDS.values())}.", ("state",)
    ),
    "afi_best_accuracy": Metric(
        "The best validation accuracy of the trials of full fidelity, 0 to 1; none before the "
        "first of them."
    ),
    "afi_hypervolume": Metric(
        "What the front dominates, as a share of the box that the report explains, 0 to 1."
    ),
    "afi_front_size": Metric("Architectures on the front."),
    "afi_images_per_second": Metric(
        "Training images per second in the last epoch of a trial.", ("trial",)
    ),
    "afi_epoch_seconds": Metric(
        "Duration of the last epoch of a trial, its validation included.", ("trial",)
    ),
    "afi_gpu_memory_bytes": Metric(
        "GPU memory that PyTorch holds in a trial's worker, its cache included; 0 on a CPU.",
        ("trial",),
    ),
}
"""Name -> gauge. Prometheus sees each with `ray_` before its name."""

# Ray drops what was not set for two of its export intervals of 10 s.
_SET_EVERY_SECONDS = 3.0


class Sample(NamedTuple):
    """The value of one gauge, with its labels besides `study`."""

    name: str
    value: float
    tags: tuple[tuple[str, str], ...] = ()


class StudyMetrics:
    """The metrics of a study, kept up to date change by change."""

    def __init__(
        self, trials: Iterable[FrozenTrial], objectives: Sequence[str], reference: Sequence[float]
    ) -> None:
        self._objectives, self._reference = objectives, reference
        self._states: dict[int, TrialState] = {}
        self._front: list[FrozenTrial] = []
        for trial in trials:
            self.changed(trial)

    def changed(self, trial: FrozenTrial) -> None:
        """Update with a trial that has changed."""
        self._states[trial.number] = trial.state
        if trial.state == TrialState.COMPLETE:
            self._front = front_trials([*self._front, trial], self._objectives)

    def samples(self) -> list[Sample]:
        """Return the current values."""
        counts = Counter(list(self._states.values()))  # at once: another thread changes it
        points = trial_points(self._front, self._objectives)
        return [
            *(
                Sample("afi_trials", counts[s], (("state", word),))
                for s, word in STATE_WORDS.items()
            ),
            *(Sample("afi_best_accuracy", float(best)) for best in sorted(points[:, 0])[-1:]),
            Sample("afi_hypervolume", dominated_share(points, self._reference)),
            Sample("afi_front_size", front_size(points)),
        ]


def worker_samples(trial: int, history: Sequence[EpochResult]) -> list[Sample]:
    """Return a worker's memory and, once an epoch of the trial has ended, its pace."""
    reserved = torch.cuda.memory_reserved() if torch.cuda.is_initialized() else 0
    values = {"afi_gpu_memory_bytes": float(reserved)}
    for epoch in history[-1:]:
        values["afi_images_per_second"] = epoch.images_per_second
        values["afi_epoch_seconds"] = epoch.seconds
    return [Sample(name, value, (("trial", str(trial)),)) for name, value in values.items()]


@contextmanager
def exported(study: str, samples: Callable[[], list[Sample]]) -> Iterator[None]:
    """Export the metrics of this process to Ray, again and again until the context ends.

    `study` labels every gauge; `samples` is called every few seconds, in a thread of its own.
    """
    over = threading.Event()
    gauges = {
        name: Gauge(name, metric.meaning, ("study", *metric.tags))
        for name, metric in METRICS.items()
    }

    def export() -> None:
        while True:
            for sample in samples():
                gauges[sample.name].set(sample.value, {"study": study, **dict(sample.tags)})
            if over.wait(_SET_EVERY_SECONDS):
                return

    thread = threading.Thread(target=export, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
