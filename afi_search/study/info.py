"""What a report says of a study besides its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from afi_search.cost import CostTable
from afi_search.data import spec_of, trained_images
from afi_search.study.folder import StudyFile


@dataclass(frozen=True)
class StudyInfo:
    """Metadata of a study that reports print: data set, device, versions, seed.

    Attributes:
        backbones: the registered backbones that the architectures are built on; most studies
            have one.
        dataset: the data set's name, such as `cifar100`.
        image_size: side of the square input in pixels.
        epochs: full fidelity, the epochs after which a trial counts for the front.
        device: description of the device that the trials were trained on.
        train_images: the number of images a trial trains on, where it is known.
        validation_images: the number of images behind each accuracy, where it is known; the
            sampling error of an accuracy is drawn from it.
        note: what the numbers are good for, in a sentence.
        costs: what the study has counted; None where it has kept nothing.
        environment: further facts, such as versions, commit and command; names to texts.

    >>> from afi_search.study.study import Study
    >>> info = Study.open("studies/reference/resnet20-digits").info
    >>> info.backbones, info.dataset, info.image_size, info.validation_images
    (('resnet20',), 'digits', 16, 287)
    """

    name: str
    backbones: tuple[str, ...]
    dataset: str
    num_classes: int
    image_size: int
    epochs: int
    preset: str
    device: str
    seed: int
    train_images: int | None = None
    validation_images: int | None = None
    note: str = ""
    costs: CostTable | None = field(default=None, compare=False, repr=False)
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values that JSON can hold."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        del values["costs"]
        return values | {"environment": dict(self.environment)}


def study_info(study: StudyFile, costs: CostTable | None = None) -> StudyInfo:
    """Return the metadata of a study, and what it has counted."""
    file, facts = study.space, study.environment
    source = spec_of(file.data)
    held_out = file.data.validation or source.validation
    return StudyInfo(
        name=study.name,
        backbones=file.backbones,
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
        costs=costs,
        environment=facts,
    )
