"""What a study of many trials costs: opening it, a proposal, a pruner's verdict, its views.

    python -m benchmarks.growth --trials 1000 5000 10000

A ledger in a journal file is filled with made-up trials of 30 epochs, two in three of them pruned,
from a space of 531,441. CPU time, with one thread for linear algebra: of a driver's steps, and of
`afi-search front`, `report` and `explain` as whole processes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
from optuna.trial import TrialState

from afi_search.cost import SpaceCosts
from afi_search.files import write_whole
from afi_search.search.conductor import Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import judge, make_pruner
from afi_search.space import Space, SpaceFile
from afi_search.study import Ledger
from afi_search.study.facts import gather_facts
from afi_search.study.folder import STUDY_FILE, StudyFile
from afi_search.study.ledger import Proposal, asked_for
from afi_search.study.storage import JOURNAL
from benchmarks.overhead import SPACE
from benchmarks.rounds import RESULTS

EPOCHS, RUNG, REPEATS = 30, 9, 5
NAME = "growth"


def space_file(sampler: str, trials: int) -> SpaceFile:
    """Return a space of 531,441 architectures."""
    pruner = {"name": "mo-asha", "grace_period": 3, "min_trials": 6}
    search = {"trials": trials + 100, "sampler": sampler, "pruner": pruner, "baselines": False}
    return SpaceFile.model_validate({**SPACE, "recipe": {"epochs": EPOCHS}, "search": search})


def fill(folder: Path, file: SpaceFile, trials: int) -> None:
    """Write a study of made-up trials, line by line, as a search does."""
    space = Space(file)
    costs = SpaceCosts(space, num_classes=100, image_size=32)
    study = StudyFile(NAME, "", "", file, gather_facts("", "none"))
    write_whole(folder / STUDY_FILE, study.dump())
    costs.table.write(folder)
    ledger = Ledger.create(folder, study)
    random = np.random.default_rng(0)
    for index in random.choice(space.size, size=trials, replace=False):
        architecture = space[int(index)]
        cost = costs.of(architecture)
        proposal = Proposal(architecture, cost, "tpe", **asked_for(space, architecture))
        begun = ledger.add(proposal, 0, EPOCHS)
        epochs = int(random.choice([3, 9, EPOCHS]))
        final = 0.6 + 0.05 * np.log10(cost.macs / 1e7) + 0.01 * random.standard_normal()
        for epoch in range(1, epochs + 1):
            ledger.report(begun.number, epoch, final * (1 - 0.5 / epoch))
        ledger.note(begun.number, seconds=10.0 * epochs)
        state = TrialState.COMPLETE if epochs == EPOCHS else TrialState.PRUNED
        ledger.finish(begun.number, state, [final, cost.macs] if epochs == EPOCHS else None)


def timed(call: Callable[[], object]) -> float:
    """Return the milliseconds of CPU that a call takes."""
    started = process_time()
    call()
    return 1000 * (process_time() - started)


def process_ms(*arguments: object) -> float:
    """Return the milliseconds of CPU that a command takes from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "afi_search", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def measure(folder: Path, sampler: str, trials: int) -> dict[str, object]:
    """Return what the ledger of a folder costs, in milliseconds of CPU."""
    file = space_file(sampler, trials)
    space = Space(file)
    costs = SpaceCosts(space, num_classes=100, image_size=32)
    _ = costs.table
    found: list[tuple[Ledger, Conductor]] = []

    def start() -> None:
        ledger = Ledger.at(folder, JOURNAL, NAME)
        assert ledger is not None
        proposer = Proposer(space, costs)
        found.append((ledger, Conductor(ledger, file, proposer, make_pruner(file))))

    opening = timed(start)
    ledger, conductor = found[0]
    proposals = [timed(conductor.next) for _ in range(REPEATS)]
    running = min(conductor.running)
    for epoch in range(1, RUNG):
        conductor.report(running, [0.9] * epoch, 1.0)
    trial = ledger.report(running, RUNG, 0.9)
    pruner = make_pruner(file)
    verdicts = [timed(lambda: judge(pruner, ledger.study, trial)) for _ in range(REPEATS)]
    return {
        "sampler": sampler,
        "trials": trials,
        "opening_ms": opening,
        "first_proposal_ms": proposals[0],
        "proposal_ms": float(np.median(proposals[1:])),
        "verdict_ms": float(np.median(verdicts)),
        "front_ms": process_ms("front", folder),
        "report_ms": process_ms("report", folder),
        "explain_ms": process_ms("explain", folder, trials // 2),
    }


def main() -> None:
    """Measure, print and write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", nargs="+", type=int, default=[1000, 5000, 10000])
    parser.add_argument("--samplers", nargs="+", default=["known-cost", "tpe"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    rows = []
    for trials in asked.trials:
        for sampler in asked.samplers:
            with tempfile.TemporaryDirectory() as folder:
                fill(Path(folder), space_file(sampler, trials), trials)
                rows.append(measure(Path(folder), sampler, trials))
    table = pd.DataFrame(rows).round(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(asked.out / "growth.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
