"""Images that lie on the device as tensors: random crops and mirror images by one gather."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from afi_search.data.dataset import ImageSet, Split
from afi_search.data.source import Batch, BatchSharding
from afi_search.space.recipe import Recipe

Channels = tuple[float, float, float]
CPU_BATCH = 100
DEVICE_BATCH = 1000


class TensorSource:
    """A split's images on one device; see `DataSource`.

    An epoch's last step is filled up from the beginning of its order, with crops of their own:
    every image is seen, no batch is too small for its batch norms, all steps have the same shape.

    Order, crops and mirroring come from a CPU generator of the source's own, one draw an epoch, and
    are the same on every device. The recipe's `flip` counts where the data is `mirror_safe`.
    """

    capturable = True

    def __init__(self, data: Split, recipe: Recipe, *, seed: int, device: torch.device) -> None:
        images = len(data.train)
        self.sharding = BatchSharding(0, 1, 1, min(recipe.batch_size, images))
        self.steps_per_epoch = self.sharding.steps(images)
        self._pad = recipe.pad
        self._flip = recipe.flip and data.spec.mirror_safe
        self._device = device
        self._padded = pad_images(data.train.images.to(device), recipe.pad - data.padding)
        self._labels = data.train.labels.to(device)
        self._validation = data.validation.to(device)
        self._normalise = Normalise(data.spec.mean, data.spec.std, device)
        self._generator = torch.Generator().manual_seed(seed)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, ...]]:
        size = self.sharding.per_device_batch
        drawn = draw_views(
            len(self._labels),
            self.steps_per_epoch * size,
            pad=self._pad,
            flip=self._flip,
            generator=self._generator,
        )
        views = Views(*(part.to(self._device, non_blocking=True) for part in drawn))
        for step in range(self.steps_per_epoch):
            yield views.batch(step * size, size)

    def batch(self, *parts: Tensor) -> Batch:
        views = Views(*parts)
        images = self._normalise(crop(self._padded, views, self._pad))
        return images, self._labels[views.image]

    def validation(self) -> Iterator[Batch]:
        return normalised_batches(self._validation, self._normalise)

    def get_state(self) -> Tensor:
        return self._generator.get_state()

    def set_state(self, state: Tensor | None) -> None:
        if state is None:
            raise ValueError("There is no state of the generator in it.")
        self._generator.set_state(state)


def normalised_batches(
    images: ImageSet, normalise: Normalise, batch_size: int | None = None
) -> Iterator[Batch]:
    """Yield all images in their order, normalised, on the device of `normalise`.

    Without a batch size, the CPU gets batches whose features stay in its cache.
    """
    size = batch_size or (CPU_BATCH if normalise.device.type == "cpu" else DEVICE_BATCH)
    images = images.to(normalise.device)
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        yield normalise(images.images[chosen]), images.labels[chosen]


class Views(NamedTuple):
    """Which part of which image each sample of an epoch is.

    All have N elements: int64, and bool for `mirrored`; the crop's corner, `top` and `left`, is
    that in the padded image.
    """

    image: Tensor
    top: Tensor
    left: Tensor
    mirrored: Tensor

    def batch(self, start: int, size: int) -> Views:
        return Views(*(part[start : start + size] for part in self))


def draw_views(
    images: int, samples: int, *, pad: int, flip: bool, generator: torch.Generator
) -> Views:
    """Draw an epoch: a random order, repeated up to `samples`, each cropped and mirrored anew."""
    order = torch.randperm(images, generator=generator)
    corners = torch.randint(0, 2 * pad + 1, (2, samples), generator=generator)
    coins = torch.randint(0, 2, (samples,), generator=generator)
    return Views(
        image=order.repeat(-(-samples // images))[:samples],
        top=corners[0],
        left=corners[1],
        mirrored=(coins == 1) & flip,
    )


def padded(data: Split, pad: int) -> Split:
    """Return a split whose training images are surrounded by so many black pixels already."""
    images = pad_images(data.train.images, pad - data.padding)
    return replace(data, train=replace(data.train, images=images), padding=pad)


def pad_images(images: Tensor, pad: int) -> Tensor:
    """Surround N x H x W x 3 images with `pad` black pixels on each side; none: the same images."""
    if not pad:
        return images
    return torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))


def crop(padded: Tensor, views: Views, pad: int) -> Tensor:
    """Cut the views out of padded images, N x (H + 2 pad) x (W + 2 pad) x 3, to B x H x W x 3.

    By one `index_select` over pixels, without synchronisation.
    """
    _, padded_height, padded_width, channels = padded.shape
    height, width = padded_height - 2 * pad, padded_width - 2 * pad
    rows = views.top[:, None] + torch.arange(height, device=padded.device)
    columns = torch.arange(width, device=padded.device)
    columns = torch.where(views.mirrored[:, None], width - 1 - columns, columns)
    columns = columns + views.left[:, None]
    first = views.image * (padded_height * padded_width)
    pixels = first[:, None, None] + (rows * padded_width)[:, :, None] + columns[:, None, :]
    chosen = padded.view(-1, channels).index_select(0, pixels.view(-1))
    return chosen.view(-1, height, width, channels)


class Normalise:
    """uint8 pixels to normalised floats, (x / 255 - mean) / std, with both on a scale of 0 to 1."""

    def __init__(self, mean: Channels, std: Channels, device: torch.device) -> None:
        self.device = device
        self._scale = 1 / (255 * torch.tensor(std, device=device))
        self._shift = torch.tensor(mean, device=device) / torch.tensor(std, device=device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn B x H x W x 3 into B x 3 x H x W with the strides of channels_last."""
        return (pixels.contiguous() * self._scale - self._shift).permute(0, 3, 1, 2)
