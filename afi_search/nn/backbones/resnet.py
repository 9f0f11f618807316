"""ResNets (He et al. 2016), plain and with squeeze-and-excitation (Hu et al. 2018).

CIFAR: 6n+2 layers, widths 16-32-64, shortcuts of option B (1x1 convolution and batch norm where
the shape changes), as the AFI paper has them. ImageNet: 50, 101 and 152 layers, the stride on the
3x3 convolution, with torchvision's names, so that its weights load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.backbones.common import conv_norm, initialise, stem
from afi_search.nn.ops.batch_norm import BatchNorm2d, normalised
from afi_search.nn.stage import Block, Stage
from afi_search.space import Architecture, get_backbone

MakeResBlock = Callable[[int, int, int, int, int], Block]


class BasicBlock(Block):
    """Two 3x3 convolutions; the stride is on the first.

    Args:
        stride: 1, or 2 to halve the resolution.
        first: output channels of the first convolution.
        second: input channels of the second.
    """

    second_is_source = False

    def __init__(self, inputs: int, channels: int, stride: int, first: int, second: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, first, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(first)
        self.conv2 = nn.Conv2d(second, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = shortcut(inputs, channels, stride)

    def first(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn1(self.conv1(x))
        return y

    def second(self, feature: Tensor) -> Tensor:
        y: Tensor = self.conv2(feature)
        return y

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        return normalised(self.bn2, y, math.inf, skip=self.downsample(x))


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions; the stride is on the 3x3.

    Args:
        inputs, stride, first, second: as in `BasicBlock`.
        channels: output channels of the 3x3 convolution.
        expansion: the block's output has that many times as many.
        groups: of the 3x3 convolution.
        squeeze: whether SE, with a ratio of 16 and no bias, weighs the last convolution's output.
    """

    second_is_rectified = True

    def __init__(
        self,
        inputs: int,
        channels: int,
        stride: int,
        first: int,
        second: int,
        *,
        expansion: int = 4,
        groups: int = 1,
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        outputs = expansion * channels
        self.conv1 = nn.Conv2d(inputs, first, 1, bias=False)
        self.bn1 = BatchNorm2d(first)
        self.conv2 = nn.Conv2d(
            second, channels, 3, stride=stride, padding=1, groups=groups, bias=False
        )
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = BatchNorm2d(outputs)
        self.se = squeeze_excite(outputs) if squeeze else nn.Identity()
        self.downsample = shortcut(inputs, outputs, stride)

    def first(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn1(self.conv1(x))
        return y

    def second(self, feature: Tensor) -> Tensor:
        return normalised(self.bn2, self.conv2(feature), math.inf)

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        y = self.conv3(y)  # on a line of its own, so that its input is released
        x = self.downsample(x)
        if isinstance(self.se, nn.Identity):
            return normalised(self.bn3, y, math.inf, skip=x)
        return F.relu(self.se(self.bn3(y)) + x, inplace=True)


def squeeze_excite(channels: int) -> nn.Module:
    """Squeeze-and-excitation with a ratio of 16 and no bias."""
    from timm.layers.squeeze_excite import SqueezeExcite

    return SqueezeExcite(channels, rd_ratio=1 / 16, bias=False)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Option B: the identity, or a 1x1 convolution and batch norm where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return conv_norm(inputs, outputs, 1, stride=stride)


class ResNet(nn.Module):
    """Stem, stages of residual blocks, global average pooling, linear classifier.

    Args:
        stem: its convolution, and what follows its batch norm and ReLU.
        block: makes a block of input channels, channels, stride, and the output channels of its
            first and the input channels of its second convolution.
        expansion: a block's output channels over its stage's channels.
    """

    def __init__(
        self,
        architecture: Architecture,
        num_classes: int,
        stem: tuple[nn.Conv2d, nn.Module],
        block: MakeResBlock,
        *,
        expansion: int,
    ) -> None:
        super().__init__()
        self.conv1, maxpool = stem
        inputs = self.conv1.out_channels
        self.bn1 = BatchNorm2d(inputs)
        self.maxpool = maxpool
        self.layers: list[str] = []
        shapes = get_backbone(architecture.backbone).stages
        for number, (shape, choice) in enumerate(
            zip(shapes, architecture.stages, strict=True), start=1
        ):
            channels, outputs = shape.channels, expansion * shape.channels
            transition = block(inputs, channels, 1 if number == 1 else 2, channels, channels)
            self.layers.append(f"layer{number}")
            self.add_module(
                self.layers[-1],
                Stage(shape, choice, transition, partial(block, outputs, channels, 1)),
            )
            inputs = outputs
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(normalised(self.bn1, self.conv1(x), math.inf))
        for layer in self.layers:
            x = self.get_submodule(layer)(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def build_cifar_resnet(architecture: Architecture, *, num_classes: int, image_size: int) -> ResNet:
    """Return a CIFAR ResNet with AFI where the architecture says so."""
    return ResNet(architecture, num_classes, stem(16, 3, image_size), BasicBlock, expansion=1)


def build_imagenet_resnet(
    architecture: Architecture, *, num_classes: int, image_size: int, squeeze: bool = False
) -> ResNet:
    """Return a ResNet of bottlenecks, with the stem for that image size."""
    block = partial(Bottleneck, squeeze=squeeze)
    return ResNet(architecture, num_classes, stem(64, 7, image_size), block, expansion=4)


build_seresnet = partial(build_imagenet_resnet, squeeze=True)
