"""What is done to an image before a model sees it."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2

from afi_search.space.fields import Number, Positive, Strict, Whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Pixels = Annotated[Whole, Field(ge=1, le=4096)]


class Preprocessing(Strict):
    """From any image to a model's input.

    Attributes:
        resize: the shorter side is resized to that many pixels, bilinear with antialiasing; None
            leaves the image as it is.
        crop: height and width of the centre crop; smaller images are padded with black.
        mean: of each channel, on a scale of 0 to 1; subtracted.
        std: likewise; divided by.
    """

    resize: Pixels | None
    crop: Pixels
    mean: tuple[Number, Number, Number]
    std: tuple[Positive, Positive, Positive]

    def cropped(self, image: Tensor) -> Tensor:
        """Resize and crop one image, 3 x H x W uint8, to 3 x crop x crop uint8."""
        if self.resize is not None:
            image = v2.functional.resize(image, [self.resize], antialias=True)
        cropped: Tensor = v2.functional.center_crop(image, [self.crop, self.crop])
        return cropped

    def normalised(self, images: Tensor) -> Tensor:
        """Turn B x 3 x H x W uint8 into floats with the strides of channels_last."""
        mean, std = _as_tensors(self.mean, self.std, images.device)
        floats = images.contiguous(memory_format=torch.channels_last).float()
        return floats.sub_(255 * mean).div_(255 * std)

    def __call__(self, image: Tensor) -> Tensor:
        """Turn one image, 3 x H x W uint8, into a batch of one."""
        return self.normalised(self.cropped(image)[None])


@cache
def _as_tensors(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return them on a device, once: to bring them there waits for the device."""
    return tuple(torch.tensor(of, device=device)[:, None, None] for of in (mean, std))  # type: ignore[return-value]
