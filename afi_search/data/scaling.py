"""Images in another size."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from afi_search.data.dataset import ImageSet


def scaled(images: ImageSet, size: int) -> ImageSet:
    """Return the images scaled to `size` x `size`, N x size x size x 3, by Pillow's box filter.

    A pixel is the mean of the pixels in its place, first along rows and then along columns, each
    mean rounded: the filter that Chrabaszcz et al. (2017, arXiv:1707.08819) and NAS-Bench-201 made
    ImageNet16 with. Where an image grows, its pixels are repeated.
    """
    box, wanted = Image.Resampling.BOX, (size, size)
    made = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for index, pixels in enumerate(images.images.numpy()):
        made[index] = np.asarray(Image.fromarray(pixels).resize(wanted, box))
    return ImageSet(torch.from_numpy(made), images.labels)
