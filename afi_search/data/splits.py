"""Holding out a validation set: stratified, and the same on every machine and for every seed.

scikit-learn's `train_test_split(stratify=...)` draws other images, which would move images between
training and validation in the studies people have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afi_search.data.dataset import Dataset, DatasetSpec, ImageSet, Split
from afi_search.errors import UserError
from afi_search.space.schema import Data

if TYPE_CHECKING:
    from torch import Tensor

# Seed of the order of the images within each class. NumPy guarantees RandomState's stream for ever.
ORDER_SEED = 20_240


def split(
    data: Dataset,
    *,
    validation: int | None = None,
    train_subset: int | None = None,
    validation_subset: int | None = None,
) -> Split:
    """Hold out a validation set in which every class keeps its share.

    Args:
        validation: images held out; the data set's default where None.
        train_subset, validation_subset: keep at most so many of the others, and of these, likewise.

    Raises:
        UserError: `validation` leaves nothing to train on, or a number is below 1.

    >>> from afi_search.data import load, split
    >>> parts = split(load("digits"), validation=100, train_subset=500)
    >>> len(parts.train), len(parts.validation)
    (500, 100)
    """
    wanted = data.spec.validation if validation is None else validation
    total = len(data.train)
    if not 0 < wanted < total:
        raise UserError(
            f"validation: {wanted} images cannot be held out of {data.spec.name}'s {total} "
            f"training images; give 1 to {total - 1}."
        )
    kept, held = held_out(data.train.labels, wanted)
    return Split(
        data.spec,
        train=_subset(data.train.select(kept), train_subset, "train_subset"),
        validation=_subset(data.train.select(held), validation_subset, "validation_subset"),
    )


def split_of(data: Data, images: Dataset) -> Split:
    """Split a data set as the `data` section of a space file says; raises as `split` does.

    >>> from afi_search.data import load
    >>> len(split_of(Data(name="digits", validation=100), load("digits")).validation)
    100
    """
    numbers = {"validation", "train_subset", "validation_subset"}
    return split(images, **data.model_dump(include=numbers))


def trained_images(spec: DatasetSpec, validation: int | None, train_subset: int | None) -> int:
    """Return how many images `split` leaves to train on, without reading the data set.

    >>> from afi_search.data import dataset_spec
    >>> trained_images(dataset_spec("cifar100"), validation=None, train_subset=None)
    45000
    """
    left = spec.train_images - (spec.validation if validation is None else validation)
    return left if train_subset is None else min(left, train_subset)


def held_out(labels: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the images kept and of the `total` held out of N, both ascending."""
    import numpy as np
    import torch

    classes, counts = torch.unique(labels, return_counts=True)
    shares = apportion(counts.tolist(), total)
    order = np.random.RandomState(ORDER_SEED)
    kept, held = [], []
    for label, share in zip(classes.tolist(), shares, strict=True):
        members = torch.nonzero(labels == label).flatten()
        shuffled = members[torch.from_numpy(order.permutation(len(members)))]
        held.append(shuffled[:share])
        kept.append(shuffled[share:])
    return torch.cat(kept).sort().values, torch.cat(held).sort().values


def apportion(counts: list[int], total: int) -> list[int]:
    """Divide `total` in proportion to `counts` by largest remainders; of equal ones, the first.

    >>> apportion([10, 10, 10], 4)
    [2, 1, 1]
    """
    everything = sum(counts)
    shares = [total * count // everything for count in counts]
    remainders = [total * count % everything for count in counts]
    by_remainder = sorted(range(len(counts)), key=remainders.__getitem__, reverse=True)
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def _subset(images: ImageSet, limit: int | None, key: str) -> ImageSet:
    if limit is None or limit >= len(images):
        return images
    if limit < 1:
        raise UserError(f"{key}: {limit} leaves no image; give 1 or more, or leave it out.")
    _, chosen = held_out(images.labels, limit)
    return images.select(chosen)
