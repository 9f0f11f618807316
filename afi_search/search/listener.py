"""What a run tells of its progress to whoever wants to hear it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from afi_search.data import DataUnavailable
from afi_search.space import Architecture
from afi_search.study.study import Study

if TYPE_CHECKING:
    from afi_search.train import EpochResult


class Listener:
    """Hears of a search, a confirmation or a promotion; override what you want to hear of.

    The methods are called in the driver's process, in this order; `trial_changed`,
    `trial_progressed` and `epoch_ended` again and again.

    >>> class Counting(Listener):
    ...     changes = 0
    ...     def trial_changed(self, trial):
    ...         self.changes += 1
    """

    def data_replaced(self, missing: DataUnavailable, name: str, fallback: str) -> None:
        """The data set `name` is not there, and the space file's fallback is taken instead."""

    def at_work(self, words: str) -> None:
        """What is at work, and takes a while, in words; told again and again."""

    def costs_measured(self, device: str) -> None:
        """What the space's architectures cost is known; latencies, if any, are of that device."""

    def space_counted(self, size: int, feasible: int | None) -> None:
        """The space has `size` architectures, of which `feasible` (if known) are feasible."""

    def study_opened(self, study: Study) -> None:
        """The study was created, or is resumed."""

    def nothing_left(self) -> None:
        """All trials are finished: there is nothing to train."""

    def engine_started(self, dashboard: str, concurrency: int, threads: int, gpus: float) -> None:
        """Ray is there; so many trials run at a time, each with its cores and its share of a GPU.

        `dashboard` says in words where Ray's is.
        """

    def trial_changed(self, trial: FrozenTrial) -> None:
        """A trial was begun or resumed, has trained an epoch, lost its worker, waits or ended."""

    def trial_progressed(self, number: int, epochs: float, images_per_second: float) -> None:
        """A trial has trained so many epochs, a part of one among them; at 0 it begins."""

    def scored(self, count: int, total: int) -> None:
        """So many of the architectures have a score that they inherit from the supernet."""

    def said(self, words: str) -> None:
        """Something else to know: what was chosen, begins, is left out or worth, in words."""

    def engine_lost(self, reason: str) -> None:
        """Ray has died, and this process within a minute; called in a thread of its own."""

    def run_ended(self) -> None:
        """The run has ended, in whatever way; called once after every `study_opened`."""

    def promotion_begun(
        self, architecture: Architecture, recipe: str, folder: Path, dashboard: str
    ) -> None:
        """An architecture is trained next; `dashboard` says where Ray's is."""

    def promotion_resumed(self, epoch: int, epochs: int) -> None:
        """A checkpoint of `epoch` was found."""

    def epoch_ended(self, epoch: EpochResult, epochs: int) -> None:
        """An epoch of a promotion's `epochs` has ended."""

    def model_written(self, paths: Sequence[Path]) -> None:
        """The trained model was exported."""
