"""The stems that ImageNet backbones share, and the image sizes they stand for."""

from __future__ import annotations

from torch import nn

CIFAR_SIZE = 32
IMAGE_SIZES = (CIFAR_SIZE, 64, 96, 128, 160, 192, 224, 256, 288)


def has_cifar_stem(image_size: int) -> bool:
    """Tell whether images of that size get the stem that keeps their resolution."""
    return image_size <= CIFAR_SIZE


def stem(channels: int, kernel_size: int, image_size: int) -> tuple[nn.Conv2d, nn.Module]:
    """Return a stem's convolution and what pools its output.

    The ImageNet stem halves the resolution twice, by a convolution of that kernel size and by max
    pooling; the CIFAR stem is a 3x3 convolution of stride 1.
    """
    if has_cifar_stem(image_size):
        return nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.Identity()
    padding = kernel_size // 2
    return (
        nn.Conv2d(3, channels, kernel_size, stride=2, padding=padding, bias=False),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
