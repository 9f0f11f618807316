"""Training and validation images out of a data set's training images."""

from __future__ import annotations

from dataclasses import dataclass

from afi_search.data.dataset import Dataset, ImageSet
from afi_search.data.registry import Source
from afi_search.data.stratify import held_out
from afi_search.errors import UserError


class SplitError(UserError):
    """More images are asked for than there are."""


@dataclass(frozen=True)
class Split:
    """What a trial sees of a data set.

    Attributes:
        train: what it learns from.
        validation: held out of the data set's training images; disjoint from `train`.
        num_classes, image_size, mean, std, mirror_safe: as in `Dataset`.
        padding: black pixels that already surround the training images on each side.
    """

    train: ImageSet
    validation: ImageSet
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirror_safe: bool = True
    padding: int = 0


def split(
    data: Dataset,
    *,
    validation: int | None = None,
    train_subset: int | None = None,
    validation_subset: int | None = None,
) -> Split:
    """Hold out a fixed, stratified validation set; the same on every machine and for every seed.

    Args:
        data: the data set.
        validation: images held out; the data set's own number where None.
        train_subset: keep at most this many of the other images, every class in its share.
        validation_subset: keep at most this many of the images held out, likewise.

    Raises:
        SplitError: `validation` leaves nothing to train on, or a number is below 1.
    """
    wanted = data.validation if validation is None else validation
    total = len(data.train)
    if not 0 < wanted < total:
        raise SplitError(
            f"validation: {wanted} images cannot be held out of {data.name}'s {total} training "
            f"images; give 1 to {total - 1}."
        )
    kept, held = held_out(data.train.labels, wanted)
    return Split(
        train=_subset(data.train.select(kept), train_subset, "train_subset"),
        validation=_subset(data.train.select(held), validation_subset, "validation_subset"),
        num_classes=data.num_classes,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        mirror_safe=data.mirror_safe,
    )


def trained_images(source: Source, validation: int | None, train_subset: int | None) -> int:
    """Return how many images `split` leaves to train on, without reading the data set."""
    left = source.train_images - (source.validation if validation is None else validation)
    return left if train_subset is None else min(left, train_subset)


def _subset(images: ImageSet, limit: int | None, key: str) -> ImageSet:
    if limit is None or limit >= len(images):
        return images
    if limit < 1:
        raise SplitError(f"{key}: {limit} leaves no image; give 1 or more, or leave it out.")
    _, chosen = held_out(images.labels, limit)
    return images.select(chosen)
