"""Data sets as tensors, and what is known of one before it is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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

    def scaled(self, size: int) -> ImageSet:
        """Return the images scaled to `size` x `size`, N x size x size x 3, by Pillow's box filter.

        A pixel is the mean of the pixels in its place, first along rows and then along columns,
        each mean rounded: the filter that Chrabaszcz et al. (2017, arXiv:1707.08819) and
        NAS-Bench-201 made ImageNet16 with. Where an image grows, its pixels are repeated.
        """
        import torch
        from PIL import Image

        scaled = np.empty((len(self), size, size, 3), dtype=np.uint8)
        for index, pixels in enumerate(self.images.numpy()):
            image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX)
            scaled[index] = np.asarray(image)
        return ImageSet(torch.from_numpy(scaled), self.labels)


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set before it is read.

    Attributes:
        name: in space files.
        num_classes: labels are 0 .. num_classes - 1.
        image_size: height and width, pixels.
        mean: of each channel of the training images, on a scale of 0 to 1.
        std: standard deviation of each channel, likewise.
        mirror_safe: whether a mirrored image keeps its label; only then a recipe's `flip` applies.
        train_images: number of training images, the validation images included.
        validation: training images that `split` holds out by default.
        class_names: in the order of the labels, where the classes have names.
    """

    name: str
    num_classes: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirror_safe: bool
    train_images: int
    validation: int
    class_names: tuple[str, ...] = ()

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its number where the classes have no names."""
        return self.class_names[label] if self.class_names else str(label)

    def at(self, image_size: int | None) -> DatasetSpec:
        """Return the spec of the images scaled to that size; None: their own size.

        `mean` and `std` stay those of the images in their own size.
        """
        if image_size is None or image_size == self.image_size:
            return self
        return replace(self, image_size=image_size)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        spec: its facts.
        train: the training images, those to hold out included.
        test: the test images; read once, for confirmed architectures.
    """

    spec: DatasetSpec
    train: ImageSet
    test: ImageSet


@dataclass(frozen=True)
class Split:
    """The images a trial uses.

    Attributes:
        spec: facts of the data set.
        train: images to train on.
        validation: held out of the data set's training images; disjoint from `train`.
        padding: black pixels that already surround the training images on each side.
    """

    spec: DatasetSpec
    train: ImageSet
    validation: ImageSet
    padding: int = 0
