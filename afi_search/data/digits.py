"""Handwritten digits, part of scikit-learn: always there, and small.

1,797 images of 8 x 8 in 17 greys (UCI, Alpaydin and Kaynak, 1998), each pixel drawn as 4 x 4, so
that CIFAR's networks fit.
"""

from __future__ import annotations

from pathlib import Path

from afi_search.data.dataset import DatasetSpec, ImageSet, register_dataset
from afi_search.data.splits import held_out


def read_digits(folder: Path) -> tuple[ImageSet, ImageSet]:
    """Return 1,437 training and 360 test images; the folder is not looked at."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits  # takes longer to import than the rest to run

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    drawn = grey.repeat(4, axis=1).repeat(4, axis=2)
    images = torch.from_numpy(drawn).unsqueeze(-1).expand(-1, -1, -1, 3).contiguous()
    everything = ImageSet(images, torch.from_numpy(digits.target.astype(np.int64)))
    rest, test = held_out(everything.labels, 360)
    return everything.select(rest), everything.select(test)


register_dataset(
    DatasetSpec(
        name="digits",
        num_classes=10,
        image_size=32,
        mean=(0.3049, 0.3049, 0.3049),
        std=(0.3758, 0.3758, 0.3758),
        mirror_safe=False,
        train_images=1437,
        validation=287,
    ),
    read_digits,
)
