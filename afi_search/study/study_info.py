"""A study's folder as what a report needs: its trials and its facts."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame

from afi_search.data import spec_of, trained_images
from afi_search.space import SpaceFile
from afi_search.study import Ledger
from afi_search.study.folder import StudyFile
from afi_search.study.info import StudyInfo


def read_study(folder: str | Path) -> tuple[DataFrame, StudyInfo]:
    """Return the records and the facts of the study in that folder.

    Raises:
        UserError: the folder holds no study.
    """
    return Ledger.open(folder).records(), study_info(StudyFile.read(folder))


def study_info(study: StudyFile) -> StudyInfo:
    """Return the facts of a study that stand above its figures."""
    file, facts = study.space, dict(study.facts)
    source = spec_of(file.data)
    held_out = file.data.validation or source.validation
    return StudyInfo(
        name=study.name,
        backbones=_backbones(file),
        dataset=file.data.name,
        num_classes=source.num_classes,
        image_size=source.image_size,
        epochs=file.recipe.epochs,
        preset=study.preset,
        device=facts.pop("device", ""),
        seed=file.search.seed,
        train_images=trained_images(source, file.data.validation, file.data.train_subset),
        validation_images=min(held_out, file.data.validation_subset or held_out),
        note=study.note,
        environment=facts,
    )


def _backbones(file: SpaceFile) -> tuple[str, ...]:
    if file.backbone is not None:
        return (file.backbone,)
    return tuple(dict.fromkeys(architecture.backbone for architecture in file.architectures))
