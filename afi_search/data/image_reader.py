"""From an image file that people have to a model's input.

Files are read as RGB; no file, however damaged, ends the process.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import Field
from torch import Tensor
from torchvision.transforms import v2

from afi_search.data.tensor_source import Normalise
from afi_search.errors import UserError
from afi_search.formatting import in_a_line
from afi_search.space.fields import Number, Positive, Strict, Whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Pixels = Annotated[Whole, Field(ge=1, le=4096)]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MOST_PIXELS = 100_000_000
_MOST_BYTES = 8 * MOST_PIXELS
"""Of four channels with 16 bits each, as they are; Pillow reads a part of any size as a whole."""
_TAIL = 4096
_LENGTHS = 100
"""An image that is longer than so many times its shorter side would fill the memory, resized."""
_JPEG_END = b"\xff\xd9"

# What Pillow warns of, damaged EXIF or a size that `MOST_PIXELS` bounds, is decided here.
warnings.filterwarnings("ignore", module=r"PIL\.")
with suppress(AttributeError):  # libtiff, which Pillow has in it, would print to stderr
    for _handler in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
        ctypes.CDLL(Image.core.__file__)[_handler](None)  # type: ignore[attr-defined]


class ImageError(UserError):
    """A file that cannot be read as an image; the message names file and reason."""


def read_image(path: str | Path) -> Tensor:
    """Read an image file as 3 x H x W uint8, RGB, upright; an ImageError says why it cannot be.

    Of JPEG, PNG, WebP, GIF, BMP, TIFF or PPM, at most 100 million pixels. 16-bit channels are
    scaled to 8 bits, of more than one frame the first is taken, EXIF's orientation is applied and
    transparency is dropped, as torchvision's ImageFolder does.

    >>> read_image("photo.jpg").shape  # doctest: +SKIP
    torch.Size([3, 375, 500])
    """
    try:
        with _opened(path) as image:
            image.load()
            with suppress(Exception):  # damaged EXIF says nothing, and viewers show it all the same
                ImageOps.exif_transpose(image, in_place=True)
            return torch.from_numpy(np.array(_rgb(image))).permute(2, 0, 1)
    except Exception as error:  # decoders raise anything at a damaged file
        raise _explained(path, error) from None


def check_image(path: str | Path) -> None:
    """Check a file as fast as a million files need it, else as `read_image` does.

    A JPEG passes by its header and its last bytes; one damaged in between is found when loaded.
    """
    try:
        with _opened(path) as image:
            if image.format in ("JPEG", "MPO") and _ends_well(path):
                return
    except Exception as error:  # decoders raise anything at a damaged file
        raise _explained(path, error) from None
    read_image(path)


class Preprocessing(Strict):
    """From any image to a model's input.

    Attributes:
        resize: the shorter side is resized to that many pixels, bilinear with antialiasing; None
            leaves the image as it is.
        crop: height and width of the centre crop; smaller images are padded with black.
        mean, std: of each channel, on a scale of 0 to 1; subtracted, and divided by.
    """

    resize: Pixels | None
    crop: Pixels
    mean: tuple[Number, Number, Number]
    std: tuple[Positive, Positive, Positive]

    def cropped(self, image: Tensor) -> Tensor:
        """Resize and crop one image, 3 x H x W uint8, to 3 x crop x crop uint8."""
        if self.resize is not None:
            height, width = image.shape[1:]
            longest = min(height, width) * (_LENGTHS + self.crop // self.resize)
            image = v2.functional.center_crop(image, [min(height, longest), min(width, longest)])
            image = v2.functional.resize(image, [self.resize], antialias=True)
        return v2.functional.center_crop(image, [self.crop, self.crop])

    def normalised(self, images: Tensor) -> Tensor:
        """Turn B x 3 x H x W uint8 into floats with the strides of channels_last."""
        return _normalise(self.mean, self.std, images.device)(images.permute(0, 2, 3, 1))

    def __call__(self, image: Tensor) -> Tensor:
        """Turn one image, 3 x H x W uint8, into a batch of one."""
        return self.normalised(self.cropped(image)[None])


_normalise = cache(Normalise)
"""One for each device: to bring mean and deviation there waits for it."""


def _opened(path: str | Path) -> Image.Image:
    if not Path(path).is_file():
        is_there = os.path.lexists(path)
        raise OSError("it is no file" if is_there else "there is no such image file")
    if Path(path).stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    image = Image.open(path, formats=FORMATS)
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS:,}")
    return image


def _ends_well(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read().rstrip(b"\0").endswith(_JPEG_END)


def _rgb(image: Image.Image) -> Image.Image:
    """Return a decoded image with 8 bits for each of red, green and blue."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, and what is white is unknown; store 8 or 16")
    return image.convert("RGB")


def _explained(path: str | Path, error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        reason = "it is no JPEG, PNG, WebP, GIF, BMP, TIFF or PPM image"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"it has more than {MOST_PIXELS:,} pixels"
    else:
        reason = str(getattr(error, "strerror", None) or error or type(error).__name__)
    return ImageError(f"{in_a_line(path)}: cannot be read: {reason}")
