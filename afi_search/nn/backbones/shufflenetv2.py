"""ShuffleNetV2 1.0x (Ma et al. 2018), with torchvision's names, so that its weights load.

The paper's own rows for ShuffleNetV2 on CIFAR-100 are not this network's: 0.94M parameters and
1.32 G are those of the first ShuffleNet (2 groups, widths 200-400-800). This is ShuffleNetV2 1.0x
as published: 1,356,104 parameters for 100 classes.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn.backbones.common import conv_norm, initialise, stem
from afi_search.nn.ops.batch_norm import BatchNorm2d, FusedSequential, in_order
from afi_search.nn.stage import Block, Stage
from afi_search.space import Architecture, get_backbone

STEM, HEAD = 24, 1024


class ShuffleBlock(Block):
    """Half the channels pass, the other half go through 1x1, 3x3 depthwise and 1x1 convolutions.

    A block of stride 2 has no half that passes: both branches read the whole input.

    Args:
        inputs: channels of the block's input, that is of both branches together, or of each where
            the stride is 2.
        channels: output channels of each branch.
        stride: 1, or 2 to halve the resolution.
        first: output channels of the second branch's first convolution.
        second: input channels of its depthwise convolution.
    """

    def __init__(self, inputs: int, channels: int, stride: int, first: int, second: int) -> None:
        super().__init__()
        self.halves = stride == 1
        self.branch1: nn.Module = nn.Identity()
        if not self.halves:
            self.branch1 = FusedSequential(
                *conv_norm(inputs, inputs, 3, stride=2, groups=inputs),
                *conv_norm(inputs, channels, 1, nn.ReLU),
            )
        self.branch2 = nn.Sequential(
            *conv_norm(inputs // 2 if self.halves else inputs, first, 1),
            nn.Identity(),  # torchvision's ReLU; here the stage activates
            *conv_norm(second, channels, 3, stride=stride, groups=channels),
            *conv_norm(channels, channels, 1, nn.ReLU),
        )

    def first(self, x: Tensor) -> Tensor:
        return self._run(slice(2), x.chunk(2, dim=1)[1] if self.halves else x)

    def second(self, feature: Tensor) -> Tensor:
        return self._run(slice(3, 5), feature)

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        passing = self.branch1(x.chunk(2, dim=1)[0] if self.halves else x)
        return shuffled(passing, self._run(slice(5, 8), y))

    def _run(self, part: slice, x: Tensor) -> Tensor:
        return in_order(list(self.branch2)[part], x)


def shuffled(one: Tensor, other: Tensor) -> Tensor:
    """Return the channels of both in turn; on a GPU, torch's own shuffle forgets channels_last."""
    if not one.is_cuda:
        return F.channel_shuffle(torch.cat((one, other), dim=1), 2)
    pairs = torch.stack([x.permute(0, 2, 3, 1) for x in (one, other)], dim=-1)
    return pairs.flatten(-2).permute(0, 3, 1, 2)


class ShuffleNetV2(nn.Module):
    """Stem, three stages, 1x1 head, average pooling, classifier."""

    def __init__(self, architecture: Architecture, *, num_classes: int, image_size: int) -> None:
        super().__init__()
        conv, self.maxpool = stem(STEM, 3, image_size)
        self.conv1 = FusedSequential(conv, BatchNorm2d(STEM), nn.ReLU(inplace=True))
        inputs = STEM
        stages = []
        for shape, choice in zip(
            get_backbone(architecture.backbone).stages, architecture.stages, strict=True
        ):
            channels, outputs = shape.channels, 2 * shape.channels
            transition = ShuffleBlock(inputs, channels, 2, channels, channels)
            following = partial(ShuffleBlock, outputs, channels, 1)
            stages.append(Stage(shape, choice, transition, following))
            inputs = outputs
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = conv_norm(inputs, HEAD, 1, nn.ReLU)
        self.fc = nn.Linear(HEAD, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
