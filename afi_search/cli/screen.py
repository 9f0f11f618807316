"""What a person sees while trials run: a live table, or a line a change without a terminal.

Of a promotion, it is a line an epoch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.segment import SegmentLines
from rich.table import Table
from rich.text import Text

from afi_search.cli import AGAIN, GOES_ON, end_at_once, is_stopping, told_to_stop
from afi_search.cli.common import console
from afi_search.data import DataUnavailable
from afi_search.formatting import duration, mega, plural
from afi_search.search.estimate import Estimate
from afi_search.search.listener import Listener
from afi_search.space import Architecture
from afi_search.study.folder import SUPERNET, StudyError
from afi_search.study.ledger import DEATHS, STATE_WORDS, UNFINISHED, curve
from afi_search.study.pareto import front_size, front_trials, trial_points
from afi_search.study.study import Study

if TYPE_CHECKING:
    from afi_search.train import EpochResult

_FINISHED_SHOWN = 8
_STOPPING = f"Stopping: epochs that end within seconds are kept, others are trained again. {AGAIN}"
_COLUMNS = ("trial", "architecture", "MACs/image", "epoch", "accuracy", "state", "images/s")
_NEEDS = {"MACs/image": 60, "state": 60, "images/s": 80}
"""Columns of a table that are shown in a terminal of so many letters."""
_COLOURS = {
    TrialState.RUNNING: "cyan",
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.WAITING: "magenta",
}


class Screen(Listener):
    """Shows what a run tells: messages, and the study's trials as they change.

    Within it, what is at work stands in the last line, until the trials or epochs do.
    """

    def __init__(self) -> None:
        self._status = console.status("Loading PyTorch and Ray")
        self._space = ""
        self._live: Live | None = None
        self._telling = ExitStack()
        self._stopping = self._over = False

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._status.stop()

    def data_replaced(self, missing: DataUnavailable, name: str, fallback: str) -> None:
        console.print(
            Panel(
                f"{missing}\n\nTaking {fallback} instead, as the space file says. The results are "
                f"not about {name}; they go to another study.",
                title=Text(f"{name} is not there"),
                border_style="bold red",
            )
        )

    def at_work(self, words: str) -> None:
        self._status.update(Text(words))
        self._status.start()

    def costs_measured(self, device: str) -> None:
        self._status.stop()
        if device:
            console.say(f"Latency: on {device}.")

    def space_counted(self, size: int, feasible: int | None) -> None:
        counted = "" if feasible in (None, size) else f"{feasible:,} of "
        self._space = f", out of {counted}{size:,} architectures"

    def study_opened(self, study: Study) -> None:
        trials = study.ledger.trials()
        self._wanted = study.file.space.search.trials
        self._unfinished = {t.number: t for t in trials if t.state in UNFINISHED}
        self._objectives = study.objectives
        self._front = front_trials(trials, study.objectives)
        self._estimate = Estimate(study.file.space, trials)
        self._speeds: dict[int, tuple[float, float]] = {}
        self._begun = time.monotonic()
        self._done = len(trials) - len(self._unfinished)
        self._latest: deque[FrozenTrial] = deque(maxlen=_FINISHED_SHOWN)
        self._is_supernet = study.folder.name == SUPERNET
        self._status.stop()
        if not self._is_supernet:
            console.prose(self.announcement(study))
        if study.news:
            news = ", ".join(f"{name} {value}" for name, value in study.news.items())
            console.say(f"Other than before: {news}. The study keeps what each run ran with.")
        self._telling.enter_context(told_to_stop(self._stops))
        if console.is_terminal:
            self._live = Live(
                console=console,
                get_renderable=self._render,
                refresh_per_second=2,
                transient=True,
            )
            self._live.start()

    def announcement(self, study: Study) -> str:
        """Say what is going to be done."""
        file = study.file.space
        return (
            f"Study {study.name}: {plural(file.search.trials, 'trial')} of at most "
            f"{plural(file.recipe.epochs, 'epoch')}{self._space}; "
            f"sampler {file.search.sampler}, pruner {file.search.pruner.name}."
        )

    def nothing_left(self) -> None:
        console.say("The study is complete: there is nothing left to train.")

    def engine_started(self, dashboard: str, concurrency: int, threads: int, gpus: float) -> None:
        console.say(
            f"Ray dashboard: {dashboard}. Trials at a time: {concurrency}, each with "
            f"{plural(threads, 'CPU core')} and {gpus:g} GPUs. Ctrl-C stops cleanly."
        )
        self._estimate.engine_started(concurrency)

    def scored(self, count: int, total: int) -> None:
        console.say(f"{count:,} of {total:,} architectures have an inherited accuracy.")

    def engine_lost(self, reason: str) -> None:
        self.run_ended()
        if is_stopping():  # whoever ended us has ended Ray's processes, too
            end_at_once(f"Interrupted. {GOES_ON}", 130)
        end_at_once(f"error: {reason}. {GOES_ON}", 2)

    def _stops(self) -> None:
        self._stopping = True
        if self._live is None:
            console.prose(_STOPPING)
        else:
            self._live.refresh()
        import afi_search.report.export  # noqa: F401  # needed next, and the workers are waited for

    def said(self, words: str) -> None:
        console.prose(words)

    def run_ended(self) -> None:
        self._telling.close()
        if self._live is not None:
            self._over = True  # Rich ends with all rows: those that scroll away would stay
            self._live.stop()
            if self._stopping:  # Ray takes seconds to end
                console.prose(_STOPPING)

    def trial_progressed(self, number: int, epochs: float, images_per_second: float) -> None:
        self._speeds[number] = epochs, images_per_second
        self._estimate.progressed(number, epochs)

    def trial_changed(self, trial: FrozenTrial) -> None:
        self._estimate.changed(trial)
        if trial.state.is_finished():
            self._unfinished.pop(trial.number, None)
            self._latest.append(trial)
            self._done += 1
            self._front = front_trials([*self._front, trial], self._objectives)
        else:
            self._unfinished[trial.number] = trial
        if not console.is_terminal:
            console.say(self._line(trial))

    def promotion_begun(
        self, architecture: Architecture, recipe: str, folder: Path, dashboard: str
    ) -> None:
        self._status.stop()
        console.say(
            f"Promoting {architecture} by the recipe {recipe}, in {folder}. "
            f"Ray dashboard: {dashboard}."
        )

    def promotion_resumed(self, epoch: int, epochs: int) -> None:
        console.say(f"Going on after epoch {epoch} of {epochs}.")

    def epoch_ended(self, epoch: EpochResult, epochs: int) -> None:
        console.say(
            f"epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.3f}  "
            f"top-1 {100 * epoch.accuracy:.2f} %  top-5 {100 * (epoch.top5 or 0):.2f} %  "
            f"{epoch.images_per_second:,.0f} images/s  {plural(epoch.workers, 'worker')}  "
            f"{epoch.seconds:.0f} s"
        )

    def model_written(self, paths: Sequence[Path]) -> None:
        console.written(paths)

    def _render(self) -> Group:
        if self._over:
            return Group()
        table = Table(box=None, pad_edge=False, header_style="bold")
        looks: dict[str, dict[str, Any]] = {
            "architecture": {"overflow": "fold", "ratio": 1},
            "state": {"no_wrap": True},
        }
        fitting = [_NEEDS.get(name, 0) <= console.width for name in _COLUMNS]
        for name in compress(_COLUMNS, fitting):
            table.add_column(name, **looks.get(name, {"justify": "right", "no_wrap": True}))
        for trial in [*self._latest, *self._unfinished.values()]:
            cells = [*_cells(trial), ""]
            if trial.number in self._speeds and trial.number in self._unfinished:
                epochs, images_per_second = self._speeds[trial.number]
                cells[3] = f"{epochs:.1f}/{trial.user_attrs['epochs']}"
                cells[6] = f"{images_per_second:,.0f}" if images_per_second else ""
            elif trial.state == TrialState.RUNNING and not curve(trial):
                cells[5] = "starting"
            table.add_row(*compress(cells, fitting), style=_COLOURS[trial.state])
        told = _STOPPING if self._stopping else self._summary()
        lines = console.render_lines(Group(Text(told, style="bold"), table), pad=False)
        shown = SegmentLines(lines[: console.height - 1], new_lines=True)
        return Group(shown, Text())  # a terminal writes ^C into the empty line

    def _line(self, trial: FrozenTrial) -> str:
        number, architecture, macs, epoch, accuracy, state = _cells(trial)
        reason = trial.user_attrs.get("reason", "")
        died, _, cause = trial.user_attrs.get(DEATHS, [""])[-1].partition(": ")
        if not reason and died == str(len(curve(trial))):
            reason = f"its worker died: {cause}"
        return (
            f"trial {number}  {architecture}  {macs} MACs/image  epoch {epoch}  {accuracy}  "
            f"{state}{f': {reason}' if reason else ''}  |  {self._summary()}"
        )

    def _summary(self) -> str:
        size_of_front = front_size(trial_points(self._front, self._objectives))
        parts = [f"{self._done} of {self._wanted} trials", f"{size_of_front} on the front"]
        if self._is_supernet:
            parts = ["the supernet is trained"]
        parts.append(f"{duration(time.monotonic() - self._begun)} so far")
        if left := self._estimate.seconds_left:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


class ConfirmScreen(Screen):
    """Shows a confirmation's trainings as they change."""

    def announcement(self, study: Study) -> str:
        """Return what is going to be done."""
        file = study.file.space
        seeds = file.confirm.seeds if file.confirm is not None else 1
        return (
            f"Confirming {len(file.architectures)} architectures with {seeds} seeds "
            f"each, {file.recipe.epochs} epochs a training, in {study.folder}."
        )


def _cells(trial: FrozenTrial) -> tuple[str, str, str, str, str, str]:
    accuracies = curve(trial)
    where = " in the supernet" if trial.user_attrs["origin"] == SUPERNET else ""
    return (
        str(trial.number),
        trial.user_attrs["architecture"] + where,
        f"{mega(trial.user_attrs['macs'])} M",
        f"{len(accuracies)}/{trial.user_attrs['epochs']}",
        f"{100 * accuracies[-1]:.2f} %" if accuracies else "-",
        STATE_WORDS[trial.state],
    )


def demand_success(study: Study) -> None:
    """Make sure that a study that has come to its end has completed any trial.

    Raises:
        StudyError: no trial was completed; the message has the reason of the first failure.
    """
    trials = study.ledger.trials()
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        return
    if trials and all(trial.state == TrialState.PRUNED for trial in trials):
        raise StudyError(
            f"{study.folder}: all {len(trials)} trials were pruned, so that there is no front; let "
            f"the pruner keep more of them, or raise search.trials"
        )
    if failed:
        many = "all" if len(failed) == len(trials) else f"none was completed, and {len(failed)} of"
        reason = failed[0].user_attrs.get("reason", "unknown")
        raise StudyError(
            f"{study.folder}: {many} {len(trials)} trials failed. Trial {failed[0].number}: "
            f"{reason}"
        )
