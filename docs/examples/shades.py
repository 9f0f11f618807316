"""A data set of your own: grey squares, dark or bright."""

import torch

import afi_search
from afi_search.data import DatasetSpec, ImageSet


def read(folder):
    """Return training and test images, N x H x W x 3 in uint8, and labels; `folder` is --data."""
    labels = torch.arange(240) % 2
    noise = torch.randint(0, 100, (240, 16, 16, 3), generator=torch.Generator().manual_seed(0))
    images = (noise + 150 * labels[:, None, None, None]).to(torch.uint8)
    return ImageSet(images[:180], labels[:180]), ImageSet(images[180:], labels[180:])


afi_search.register_dataset(
    DatasetSpec(
        name="shades",
        num_classes=2,
        image_size=16,
        mean=(0.45, 0.45, 0.45),
        std=(0.3, 0.3, 0.3),
        mirror_safe=True,  # an image and its mirror image are of one class
        train_images=180,
        validation=60,  # of these, held out
        class_names=("dark", "bright"),
    ),
    read,
)
