from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from afi_search.search.estimate import Estimate
from tests.search.studies import accuracy, conductor_for, space_file
from tests.typed import there

EPOCH, QUARTER = 8.0, 2.0


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize("pruner", ["mo-asha", "none"])
def test_what_is_left_is_told_before_a_trial_has_ended_and_counts_down(
    tmp_path: Path, pruner: str
) -> None:
    """Two workers at a time, whose epochs all take EPOCH seconds and are told by quarters."""
    settings = {"name": pruner, "grace_period": 3, "reduction_factor": 3, "min_trials": 4}
    file = space_file(search={"trials": 24, "pruner": settings})
    clock = Clock()
    estimate = Estimate(file, [], clock)
    _, conductor = conductor_for(file, tmp_path, on_change=estimate.changed)
    estimate.engine_started(2)
    epochs: dict[int, float] = {}
    running: dict[Any, Any] = {}
    told: list[tuple[float, float]] = []
    while running or conductor.has_next:
        while len(running) < 2 and (assigned := conductor.next() if conductor.has_next else None):
            running[assigned.number], epochs[assigned.number] = assigned, 0.0
            estimate.progressed(assigned.number, 0.0)
        clock.seconds += QUARTER
        for number, one in list(running.items()):
            epochs[number] += QUARTER / EPOCH
            estimate.progressed(number, epochs[number])
            if epochs[number] % 1:
                continue
            curve = [accuracy(one.architecture, n + 1) for n in range(int(epochs[number]))]
            if conductor.report(number, curve, 0.0):
                del running[number]
        assert estimate.seconds_left is not None
        told.append((clock.seconds, estimate.seconds_left))

    whole = clock.seconds
    assert told[0][0] < EPOCH
    for now, left in told:
        assert left == pytest.approx(whole - now, rel=0.01 if pruner == "none" else 0.5, abs=60)
    later = [left for now, left in told if now > whole / 3]
    assert max(b - a for a, b in pairwise(later)) < 0.15 * whole
    assert estimate.seconds_left == 0


def test_between_changes_it_counts_down_by_the_clock(tmp_path: Path) -> None:
    file = space_file()
    clock = Clock()
    estimate = Estimate(file, [], clock)
    _, conductor = conductor_for(file, tmp_path, on_change=estimate.changed)
    assigned = conductor.next()
    assert assigned is not None
    before = estimate.seconds_left
    assert before is None
    clock.seconds = 1.0
    estimate.progressed(assigned.number, 0.0)
    clock.seconds = 3.0
    estimate.progressed(assigned.number, 0.25)
    first = there(estimate.seconds_left)
    assert first == pytest.approx(8.0 * estimate._epochs_left())
    clock.seconds = 7.0
    assert estimate.seconds_left == pytest.approx(first - 4.0)


def test_a_resumed_study_counts_what_is_left_of_its_trials(tmp_path: Path) -> None:
    file = space_file(search={"trials": 1, "pruner": {"name": "none"}})
    ledger, conductor = conductor_for(file, tmp_path)
    assigned = conductor.next()
    assert assigned is not None
    conductor.report(assigned.number, [0.1] * 5, 0.0)
    conductor.interrupt()

    clock = Clock()
    estimate = Estimate(file, ledger.trials(), clock)
    _, again = conductor_for(file, tmp_path, on_change=estimate.changed)
    again.next()
    clock.seconds = 5.0
    again.report(assigned.number, [0.1] * 5, 0.0)
    assert estimate.seconds_left is None
    clock.seconds = 15.0
    again.report(assigned.number, [0.1] * 6, 0.0)
    assert estimate.seconds_left == pytest.approx(30.0)
