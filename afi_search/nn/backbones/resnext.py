"""ResNeXts of cardinality 32 and width 4 (Xie et al. 2017).

`resnext29` is the CIFAR variant that is widely used: a 1x1 stem of 64 channels and three stages of
three blocks. `resnext50` is the ImageNet one, with torchvision's names, so that its weights load.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from afi_search.nn.backbones.common import stem
from afi_search.nn.backbones.resnet import Bottleneck, ResNet
from afi_search.space import Architecture

EXPANSION = 2
ResNeXtBlock = partial(Bottleneck, expansion=EXPANSION, groups=32)


def build_resnext29(architecture: Architecture, *, num_classes: int, image_size: int) -> ResNet:
    """Return ResNeXt-29 (32x4d) for CIFAR."""
    pointwise = nn.Conv2d(3, 64, 1, bias=False), nn.Identity()
    return ResNet(architecture, num_classes, pointwise, ResNeXtBlock, expansion=EXPANSION)


def build_resnext50(architecture: Architecture, *, num_classes: int, image_size: int) -> ResNet:
    """Return ResNeXt-50 (32x4d), with the stem for that image size."""
    conv = stem(64, 7, image_size)
    return ResNet(architecture, num_classes, conv, ResNeXtBlock, expansion=EXPANSION)
