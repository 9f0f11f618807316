"""A backbone from outside the package: one file and one registration.

Nothing in afi_search knows of it; a space file names this module under `imports`.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.nn import Block, Stage
from afi_search.space import Architecture, Backbone, StageShape, get_backbone, register_backbone


class ToyBlock(Block):
    """Two 3x3 convolutions, no shortcut."""

    def __init__(self, inputs: int, channels: int, stride: int, first: int, second: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, first, 3, stride=stride, padding=1)
        self.two = nn.Conv2d(second, channels, 3, padding=1)

    def first(self, x: Tensor) -> Tensor:
        return self.one(x)

    def second(self, feature: Tensor) -> Tensor:
        return F.relu(self.two(feature))

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        return y


class ToyNet(nn.Module):
    """Two stages and a classifier."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        inputs = 3
        for shape, choice in zip(
            get_backbone(architecture.backbone).stages, architecture.stages, strict=True
        ):
            channels = shape.channels
            transition = ToyBlock(inputs, channels, 2, channels, channels)
            self.stages.append(
                Stage(shape, choice, transition, partial(ToyBlock, channels, channels, 1))
            )
            inputs = channels
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.stages(x).mean((2, 3)))


def build_toy(architecture: Architecture, *, num_classes: int, image_size: int) -> nn.Module:
    return ToyNet(architecture, num_classes)


register_backbone(Backbone("toynet", (StageShape(8, 2), StageShape(16, 4)), (16, 32), build_toy))
