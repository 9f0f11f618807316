"""Studies without training: learning curves by formula, played through the real conductor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from afi_search.cost import SpaceCosts
from afi_search.search.conductor import Assignment, Conductor
from afi_search.search.proposer import Proposer
from afi_search.search.pruners import make_pruner
from afi_search.space import Architecture, Space, SpaceFile
from afi_search.study import Ledger
from afi_search.study.folder import StudyFile, has_study
from afi_search.study.storage import JOURNAL
from afi_search.study.study import Study

CLASSES, PIXELS = 10, 32


def space_file(**changes: Any) -> SpaceFile:
    """A space of 5 ** 3 = 125 architectures."""
    settings: dict[str, Any] = {
        "backbone": "resnet20",
        "stages": {
            "all": {"width": ["off", "base", "B"], "ratio": [4], "scorer": ["block", "stage"]}
        },
        "data": {"name": "digits"},
        "recipe": {"epochs": 9},
        "search": {
            "trials": 20,
            "baselines": False,
            "pruner": {"name": "mo-asha", "grace_period": 1, "min_trials": 3},
        },
    }
    search = {**settings["search"], **changes.pop("search", {})}
    return SpaceFile.model_validate({**settings, "search": search, **changes})


def accuracy(architecture: Architecture, epoch: int) -> float:
    """A learning curve that is the architecture's own, and never falls."""
    level = 0.3 + 0.6 * (int(architecture.id, 16) % 1000) / 1000
    return level * (1 - 0.5**epoch)


def open_study(folder: Path, asked: StudyFile, **others: Any) -> StudyFile:
    """Begin or resume a study, and let it go again."""
    with Study.begin(folder, asked, **others) as study:
        return study.file


def conductor_for(
    file: SpaceFile, folder: Path, storage: str = JOURNAL, **others: Any
) -> tuple[Ledger, Conductor]:
    if not has_study(folder):
        open_study(folder, StudyFile("study", "", "", file, {}, storage))
    ledger = Ledger.open(folder)
    space, costs = Space(file), conductor_costs(file)
    pruner = make_pruner(file)
    return ledger, Conductor(
        ledger,
        file,
        Proposer(space, costs, ledger.study.study_name),
        pruner,
        **others,
    )


def conductor_costs(file: SpaceFile) -> SpaceCosts:
    """The costs of a file's space, measured once."""
    return _costs(file.model_dump_json(exclude={"presets"}))


@lru_cache
def _costs(json: str) -> SpaceCosts:
    space = Space(SpaceFile.model_validate_json(json))
    return SpaceCosts(space, num_classes=CLASSES, image_size=PIXELS)


class Killed(Exception):
    """The driver is gone, in the middle of whatever it was doing."""


def play(
    conductor: Conductor,
    workers: int = 1,
    checkpoints: dict[int, int] | None = None,
    on_epoch: Callable[[int, int], None] = lambda number, epoch: None,
) -> dict[int, int]:
    """Run a study to its end; return how many epochs each trial was trained.

    `checkpoints` (trial -> epoch) outlives a driver; `on_epoch` is called when an epoch is trained
    and checkpointed and before the conductor hears of it.
    """
    checkpoints = {} if checkpoints is None else checkpoints
    trained: dict[int, int] = {}
    active: deque[Assignment] = deque()
    while True:
        while len(active) < workers and conductor.has_next:
            assignment = conductor.next()
            assert assignment is not None
            active.append(assignment)
            if checkpoints.get(assignment.number) and _tell(conductor, assignment, checkpoints):
                active.remove(assignment)
        if not active:
            return trained
        assignment = active.popleft()
        number = assignment.number
        checkpoints[number] = checkpoints.get(number, 0) + 1
        trained[number] = trained.get(number, 0) + 1
        on_epoch(number, checkpoints[number])
        if not _tell(conductor, assignment, checkpoints):
            active.append(assignment)


def _tell(conductor: Conductor, assignment: Assignment, checkpoints: dict[int, int]) -> bool:
    epochs = range(1, checkpoints[assignment.number] + 1)
    curve = [accuracy(assignment.architecture, epoch) for epoch in epochs]
    return conductor.report(assignment.number, curve, seconds=float(len(curve)))
