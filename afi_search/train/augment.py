"""Random crops and mirror images, one draw a sample, by one gather."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """Which part of which image each sample of an epoch is.

    Attributes:
        index: N, int64, the image.
        top, left: N, int64, the crop's corner in the padded image.
        mirrored: N, bool.
    """

    index: Tensor
    top: Tensor
    left: Tensor
    mirrored: Tensor

    def batch(self, start: int, size: int) -> Views:
        """Return `size` samples from `start` on."""
        return Views(*(part[start : start + size] for part in self.parts()))

    def to(self, device: torch.device) -> Views:
        """Return the views on `device`."""
        return Views(*(part.to(device, non_blocking=True) for part in self.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the four tensors in order."""
        return self.index, self.top, self.left, self.mirrored


def draw_views(
    images: int, samples: int, *, pad: int, flip: bool, generator: torch.Generator
) -> Views:
    """Draw the samples of one epoch on the generator's device.

    Every image comes once in a random order, which starts again from its beginning until there
    are `samples` of them; each sample has a crop and a mirroring of its own.
    """
    device = generator.device
    order = torch.randperm(images, generator=generator, device=device)
    corners = torch.randint(0, 2 * pad + 1, (2, samples), generator=generator, device=device)
    coins = torch.randint(0, 2, (samples,), generator=generator, device=device)
    return Views(
        index=order.repeat(-(-samples // images))[:samples],
        top=corners[0],
        left=corners[1],
        mirrored=(coins == 1) & flip,
    )


def pad_images(images: Tensor, pad: int) -> Tensor:
    """Surround N x H x W x 3 images with `pad` black pixels on each side; none: the same images."""
    if not pad:
        return images
    return torch.nn.functional.pad(images, (0, 0, pad, pad, pad, pad))


def crop(padded: Tensor, views: Views, pad: int) -> Tensor:
    """Cut the views out of padded images, N x (H + 2 pad) x (W + 2 pad) x 3.

    Returns:
        B x H x W x 3, of the images' dtype: one `index_select` over pixels, no synchronisation.
    """
    _, padded_height, padded_width, channels = padded.shape
    height, width = padded_height - 2 * pad, padded_width - 2 * pad
    rows = views.top[:, None] + torch.arange(height, device=padded.device)
    columns = torch.arange(width, device=padded.device)
    columns = torch.where(views.mirrored[:, None], width - 1 - columns, columns)
    columns = columns + views.left[:, None]
    first = views.index * (padded_height * padded_width)
    pixels = first[:, None, None] + (rows * padded_width)[:, :, None] + columns[:, None, :]
    chosen = padded.view(-1, channels).index_select(0, pixels.view(-1))
    return chosen.view(-1, height, width, channels)


class Normalise:
    """uint8 pixels to normalised floats: (x / 255 - mean) / std."""

    def __init__(
        self,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: torch.device,
    ) -> None:
        self._scale = 1 / (255 * torch.tensor(std, device=device))
        self._shift = torch.tensor(mean, device=device) / torch.tensor(std, device=device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Turn B x H x W x 3 into B x 3 x H x W with the strides of channels_last."""
        return (pixels * self._scale - self._shift).permute(0, 3, 1, 2)
