"""A simulated clock with workers that play learning curves through a scheduler.

The scheduler is the very conductor that runs in production, or a peer's behind the same methods.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import process_time
from typing import Protocol

from afi_search.search.conductor import Assignment
from benchmarks.curves import CurveTable


class Scheduler(Protocol):
    """What the clock asks: `afi_search.search.conductor.Conductor` has these methods."""

    @property
    def has_next(self) -> bool: ...

    def next(self) -> Assignment | None: ...

    def report(self, number: int, accuracies: Sequence[float], seconds: float) -> bool: ...


@dataclass(frozen=True)
class FullTraining:
    """A training that reached the last epoch.

    Attributes:
        spent: epochs of all trials together, up to its end.
        clock: simulated seconds since the start.
        row: of the architecture in the table.
        accuracy: as measured, 0 to 1.
        worth: the accuracy that the table's other seeds give the architecture.
    """

    spent: int
    clock: float
    row: int
    accuracy: float
    worth: float


@dataclass(frozen=True)
class Play:
    """What a search made of its budget.

    Attributes:
        finished: full trainings in the order of their ends.
        trials: that were begun.
        distinct: architectures among them.
        spent: epochs.
        proposing: CPU seconds in which the scheduler said what to train next.
    """

    finished: tuple[FullTraining, ...]
    trials: int
    distinct: int
    spent: int
    proposing: float = field(default=0.0, compare=False)


def play(scheduler: Scheduler, table: CurveTable, *, budget: int, workers: int = 4) -> Play:
    """Run a search on simulated workers until its epochs are spent or nothing is left to try.

    Args:
        scheduler: decides what is tried and what is stopped.
        table: of the learning curves.
        budget: epochs of all trials together.
        workers: trials at a time.
    """
    queue: list[tuple[float, int, int]] = []
    curves: dict[int, tuple[int, int, list[float]]] = {}
    finished: list[FullTraining] = []
    clock, spent, proposing = 0.0, 0, 0.0

    def begin() -> None:
        nonlocal proposing
        while len(queue) < workers and scheduler.has_next:
            started = process_time()
            assignment = scheduler.next()
            proposing += process_time() - started
            if assignment is None:
                return
            row, seed = table.row(assignment.architecture), assignment.seed
            curves[assignment.number] = (row, seed, table.curve(row, seed))
            heapq.heappush(queue, (clock + table.seconds[row], assignment.number, 1))

    begin()
    while queue and spent < budget:
        clock, number, epoch = heapq.heappop(queue)
        spent += 1
        row, seed, curve = curves[number]
        stops = scheduler.report(number, curve[:epoch], epoch * float(table.seconds[row]))
        if epoch == table.epochs:
            worth = table.worth(row, seed)
            finished.append(FullTraining(spent, clock, row, curve[-1], worth))
        elif not stops:
            heapq.heappush(queue, (clock + table.seconds[row], number, epoch + 1))
        begin()
    distinct = len({row for row, _, _ in curves.values()})
    return Play(tuple(finished), len(curves), distinct, spent, proposing)
