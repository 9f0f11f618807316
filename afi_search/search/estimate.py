"""How long the trials of a study will still take, from before the first of them has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from afi_search.space.schema import NONE, SpaceFile
from afi_search.study.ledger import curve

_TRAINED = (TrialState.COMPLETE, TrialState.PRUNED)


class Estimate:
    """Follows a run's trials; `seconds_left` counts down from one change to the next."""

    def __init__(
        self,
        file: SpaceFile,
        trials: Iterable[FrozenTrial],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._clock = file, clock
        self._concurrency = 1
        self._lives: dict[int, int] = {}
        self._epochs: dict[int, float] = {}  # of those that are not finished
        self._since: dict[int, float | None] = {}
        self._trained = self._worked = 0.0
        self._over: float | None = None
        for trial in trials:
            self._note(trial)

    def engine_started(self, concurrency: int) -> None:
        """So many trials are run at a time."""
        self._concurrency = concurrency

    def changed(self, trial: FrozenTrial) -> None:
        """A trial was begun, has trained an epoch, or ended."""
        if trial.number in self._since:
            self.progressed(trial.number, len(curve(trial)))
        else:  # what the first workers take to start is no part of the pace
            reused = len(self._since) >= self._concurrency
            self._since[trial.number] = self._clock() if reused else None
        self._note(trial)
        self._foresee()

    def progressed(self, number: int, epochs: float) -> None:
        """A trial has trained so many epochs, a part of one; at first, that its worker is there."""
        now, since = self._clock(), self._since[number]
        if since is not None:
            self._trained += max(0.0, epochs - self._epochs[number])
            self._worked += now - since
        self._since[number] = now
        self._epochs[number] = max(epochs, self._epochs[number])
        self._foresee()

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last trial ends; None before anything has been trained."""
        return None if self._over is None else max(0.0, self._over - self._clock())

    def _note(self, trial: FrozenTrial) -> None:
        if not trial.state.is_finished():
            known = self._epochs.get(trial.number, 0.0)
            self._epochs[trial.number] = max(known, len(curve(trial)))
            return
        self._epochs.pop(trial.number, None)
        self._lives[trial.number] = len(curve(trial)) if trial.state in _TRAINED else 0

    def _foresee(self) -> None:
        if self._trained:
            seconds = self._epochs_left() * self._worked / self._trained
            self._over = self._clock() + seconds

    def _epochs_left(self) -> float:
        """Return the epochs that the worker which ends last will still train."""
        search, free = self._file.search, self._file.search.pruner.min_trials
        ended = [life for number, life in self._lives.items() if number >= free]
        others = [epochs for number, epochs in self._epochs.items() if number >= free]
        goes_on = shares_that_go_on(self._file, ended, others)
        running = [
            self._file.recipe.epochs - epochs if number < free else further_epochs(epochs, goes_on)
            for number, epochs in self._epochs.items()
        ]
        new = max(0, search.trials - len(self._lives) - len(self._epochs))
        left = sum(running) + new * further_epochs(0, goes_on)
        return max(left / self._concurrency, *running, 0.0)


def shares_that_go_on(
    file: SpaceFile, ended: Sequence[int], running: Sequence[float]
) -> NDArray[np.float64]:
    """Return the share of the trials that go on after each epoch, from 0 to the last.

    At first they are thought to do so as the pruner's `reduction_factor` says, a thought that
    weighs as much as `min_trials` of the trials that have come to that epoch. `ended` are epochs of
    the trials that have ended and could have been stopped, `running` of those that have not.

    >>> from afi_search.space import Space
    >>> file = Space.load("spaces/resnet.yaml", "smoke").file  # 4 epochs, after 2 one in 2 goes on
    >>> shares_that_go_on(file, [], []).tolist(), shares_that_go_on(file, [2], [2.5, 4]).tolist()
    ([1.0, 1.0, 0.5, 1.0, 0.0], [1.0, 1.0, 0.5714285714285714, 1.0, 0.0])
    """
    pruner, last = file.search.pruner, file.recipe.epochs
    thought, rung = np.ones(last + 1), pruner.grace_period
    while rung < last and pruner.name != NONE:
        thought[rung] = 1 / pruner.reduction_factor
        rung *= pruner.reduction_factor
    known = np.sort([*ended, *running])
    passed = len(known) - np.searchsorted(known, np.arange(last + 1), "right")
    stopped = np.bincount(ended, minlength=last + 1)
    weight = pruner.min_trials
    shares: NDArray[np.float64] = (weight * thought + passed) / (weight + passed + stopped)
    shares[last] = 0
    return shares


def further_epochs(epochs: float, goes_on: NDArray[np.float64]) -> float:
    """Return how many epochs more a trial is expected to be trained after so many.

    >>> further_epochs(0, np.array([1, 1, 0.5, 1, 0])), further_epochs(2.5, np.array([1, 1, 1, 0]))
    (3.0, 0.5)
    """
    this = int(epochs) + 1
    if this >= len(goes_on):
        return 0.0
    return this - epochs + float(np.cumprod(goes_on[this:]).sum())
