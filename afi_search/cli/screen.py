"""What a person sees while trials run: a live table, or a line a change without a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from afi_search.formatting import duration, mega
from afi_search.study.ledger import STATE_WORDS, UNFINISHED, curve
from afi_search.study.pareto import GrowingFront

_FINISHED_SHOWN = 8
_COLOURS = {
    TrialState.RUNNING: "cyan",
    TrialState.COMPLETE: "green",
    TrialState.PRUNED: "yellow",
    TrialState.FAIL: "red",
    TrialState.WAITING: "magenta",
}


class Screen:
    """Shows a study's trials as they change.

    Args:
        console: where to.
        wanted: trials the study is to have.
        trials: those it has already.
        costs: the objectives but for the accuracy.
    """

    def __init__(
        self, console: Console, wanted: int, trials: list[FrozenTrial], costs: Sequence[str]
    ) -> None:
        self._console = console
        self._wanted = wanted
        self._unfinished = {t.number: t for t in trials if t.state in UNFINISHED}
        self._front = GrowingFront(costs, trials)
        self._begun = time.monotonic()
        self._done = self._done_before = len(trials) - len(self._unfinished)
        self._latest: deque[FrozenTrial] = deque(maxlen=_FINISHED_SHOWN)
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def changed(self, trial: FrozenTrial) -> None:
        """Take notice of a trial about which something has changed."""
        if trial.state.is_finished():
            self._unfinished.pop(trial.number, None)
            self._latest.append(trial)
            self._done += 1
            self._front.add(trial)
        else:
            self._unfinished[trial.number] = trial
        if not self._console.is_terminal:
            self._console.print(self._line(trial), soft_wrap=True, highlight=False, markup=False)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("trial", justify="right")
        table.add_column("architecture", overflow="fold", ratio=1)
        table.add_column("MACs/image", justify="right")
        table.add_column("epoch", justify="right")
        table.add_column("accuracy", justify="right")
        table.add_column("state")
        for trial in [*self._latest, *self._unfinished.values()]:
            table.add_row(*_cells(trial), style=_COLOURS[trial.state])
        return Group(table, Text(self._summary(), style="bold"))

    def _line(self, trial: FrozenTrial) -> str:
        number, architecture, macs, epoch, accuracy, state = _cells(trial)
        reason = trial.user_attrs.get("reason", "")
        return (
            f"trial {number}  {architecture}  {macs} MACs/image  epoch {epoch}  {accuracy}  "
            f"{state}{f': {reason}' if reason else ''}  |  {self._summary()}"
        )

    def _summary(self) -> str:
        finished = self._done - self._done_before
        parts = [f"{self._done} of {self._wanted} trials", f"front {len(self._front)}"]
        if finished and self._done < self._wanted:
            left = (time.monotonic() - self._begun) / finished * (self._wanted - self._done)
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


def _cells(trial: FrozenTrial) -> tuple[str, str, str, str, str, str]:
    accuracies = curve(trial)
    return (
        str(trial.number),
        trial.user_attrs["architecture"],
        f"{mega(trial.user_attrs['macs'])} M",
        f"{len(accuracies)}/{trial.user_attrs['epochs']}",
        f"{100 * accuracies[-1]:.2f} %" if accuracies else "-",
        STATE_WORDS[trial.state],
    )
