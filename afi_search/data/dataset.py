"""Images and labels as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Attributes:
        images: N x H x W x 3, uint8.
        labels: N, int64, from 0.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> ImageSet:
        """Return the images at `indices` (int64), in their order."""
        return ImageSet(self.images[indices], self.labels[indices])

    def to(self, device: torch.device) -> ImageSet:
        """Return the set on `device`."""
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A data set with its own test set, as read.

    Attributes:
        name: its name in space files.
        num_classes: labels are 0 .. num_classes - 1.
        image_size: height and width, pixels.
        mean: of each channel of the training images, on a scale of 0 to 1.
        std: the same for the standard deviation.
        mirror_safe: whether a mirrored image keeps its label; a recipe's `flip` is for these only.
        validation: training images that `split` holds out unless told another number.
        train: the training images, the ones to hold out included.
        test: read once, for confirmed architectures.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirror_safe: bool
    validation: int
    train: ImageSet
    test: ImageSet
