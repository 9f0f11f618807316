"""The trained networks that a study's checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afi_search.data import spec_of
from afi_search.data.preprocessing import Preprocessing
from afi_search.errors import UserError
from afi_search.model.model import Facts, Model
from afi_search.nn import build
from afi_search.space import Architecture
from afi_search.study import Ledger
from afi_search.study.checkpoint_location import place_of, trial_place
from afi_search.study.folder import StudyFile
from afi_search.study.ledger import curve
from afi_search.train import load


class NoCheckpoint(UserError):
    """A trial whose weights are not there."""


def trial_state(folder: Path, number: int) -> dict[str, Any]:
    """Return the last checkpoint of a trial.

    Raises:
        NoCheckpoint: the trial has none.
        CorruptCheckpoint: it cannot be read.
    """
    where = trial_place(place_of(folder, StudyFile.read(folder).checkpoints), number)
    state = load(where)
    if state is None:
        raise NoCheckpoint(f"{where}: trial {number} of {folder} has no checkpoint")
    return state


def trial_model(folder: Path, ledger: Ledger, number: int, state: Mapping[str, Any]) -> Model:
    """Return the network of a trial, as a checkpoint of it has it.

    Args:
        folder: of the study, or of its confirmation.
        ledger: the folder's.
        number: of the trial.
        state: its checkpoint.
    """
    study = StudyFile.read(folder)
    source = spec_of(study.space.data)
    trial = ledger.trial(number)
    architecture = Architecture.parse(trial.user_attrs["architecture"])
    module = build(architecture, num_classes=source.num_classes, image_size=source.image_size)
    module.load_state_dict(state["model"])
    accuracies, epoch = curve(trial), int(state["epoch"])
    metrics = {"validation accuracy": accuracies[epoch - 1]} if epoch <= len(accuracies) else {}
    if epoch == trial.user_attrs["epochs"] and number in (known := ledger.tested()):
        metrics["test accuracy"] = known[number]
    facts = Facts(
        architecture=architecture.text,
        num_classes=source.num_classes,
        stem=source.image_size,
        preprocessing=Preprocessing(
            resize=source.image_size, crop=source.image_size, mean=source.mean, std=source.std
        ),
        classes=tuple(map(source.class_name, range(source.num_classes))),
        metrics=metrics,
        training={
            "study": study.name,
            "trial": number,
            "epochs": epoch,
            "seed": trial.user_attrs["seed"],
            "data": study.space.data.model_dump(mode="json", exclude={"folder"}, exclude_none=True),
            "recipe": study.space.recipe.model_dump(mode="json"),
            "facts": {key: value for key, value in study.facts.items() if key != "command"},
        },
    )
    return Model(module, facts)
