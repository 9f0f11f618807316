"""MobileNetV2 (Sandler et al. 2018).

For 32 pixels it is the CIFAR variant that is widely used, and whose counts the AFI paper has: a
stem and a first searched stage of stride 1, ReLU, an expansion also in the first block, and a 1x1
convolution as shortcut where a block changes the width but not the resolution. For other sizes it
is the published network as torchvision has it. The searched stages, the five groups of more than
one block, have the same widths and depths in both.
"""

from __future__ import annotations

import math
import re
from functools import partial

from torch import Tensor, nn

from afi_search.nn.backbones.common import conv_norm, has_cifar_stem, initialise
from afi_search.nn.ops.batch_norm import normalised
from afi_search.nn.stage import Block, Stage
from afi_search.space import Architecture, get_backbone

EXPANSION = 6
STEM, FIRST, LAST, HEAD = 32, 16, 320, 1280
STAGE_WIDTHS = (24, 32, 64, 96, 160)
STRIDES, CIFAR_STRIDES = (2, 2, 2, 1, 2), (1, 2, 2, 1, 2)

# Where torchvision's layers "features.0", "features.1", ... are here, and the last convolution's
# place in a block.
_STAGES = [
    f"stages.{stage}.{n}"
    for stage, shape in enumerate(get_backbone("mobilenetv2").stages)
    for n in range(shape.blocks)
]
_PLACES = dict(enumerate(["stem", "first", *_STAGES, "last", "head"]))
_PROJECT = ("project.0", "project.1")


class InvertedResidual(Block):
    """1x1 expansion, 3x3 depthwise convolution, 1x1 projection without activation.

    Args:
        hidden: output channels of the depthwise convolution, and its groups.
        first: output channels of the expansion; 0 where there is none.
        second: input channels of the depthwise convolution.
        cifar: whether to have the CIFAR variant's activation and shortcut.
    """

    second_is_rectified = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        hidden: int,
        first: int,
        second: int,
        *,
        cifar: bool,
    ) -> None:
        super().__init__()
        activation = nn.ReLU if cifar else nn.ReLU6
        self.expand = conv_norm(inputs, first, 1) if first else nn.Identity()
        self.expands = bool(first)
        self.ceiling = math.inf if cifar else 6.0
        self.depthwise = conv_norm(second, hidden, 3, activation, stride=stride, groups=hidden)
        self.project = conv_norm(hidden, outputs, 1)
        self.residual = stride == 1 and (cifar or inputs == outputs)
        changes_width = self.residual and inputs != outputs
        self.shortcut = conv_norm(inputs, outputs, 1) if changes_width else nn.Identity()

    def first(self, x: Tensor) -> Tensor:
        y: Tensor = self.expand(x)
        return y

    def activate(self, y: Tensor) -> Tensor:
        return super().activate(y) if self.expands else y

    def second(self, feature: Tensor) -> Tensor:
        y: Tensor = self.depthwise(feature)
        return y

    def last(self, y: Tensor, x: Tensor) -> Tensor:
        convolution, norm = self.project
        return normalised(norm, convolution(y), skip=self.shortcut(x) if self.residual else None)


class MobileNetV2(nn.Module):
    """Stem, first block, five stages, last block, 1x1 head, average pooling, classifier."""

    def __init__(self, architecture: Architecture, *, num_classes: int, image_size: int) -> None:
        super().__init__()
        cifar = has_cifar_stem(image_size)
        activation = nn.ReLU if cifar else nn.ReLU6
        block = partial(InvertedResidual, cifar=cifar)
        self.stem = conv_norm(3, STEM, 3, activation, stride=1 if cifar else 2)
        self.first = block(STEM, FIRST, 1, STEM, first=STEM if cifar else 0, second=STEM)
        self.stages = nn.ModuleList()
        inputs = FIRST
        for shape, choice, outputs, stride in zip(
            get_backbone(architecture.backbone).stages,
            architecture.stages,
            STAGE_WIDTHS,
            CIFAR_STRIDES if cifar else STRIDES,
            strict=True,
        ):
            hidden = EXPANSION * inputs
            transition = block(inputs, outputs, stride, hidden, hidden, hidden)
            following = partial(block, outputs, outputs, 1, shape.channels)
            self.stages.append(Stage(shape, choice, transition, following))
            inputs = outputs
        hidden = EXPANSION * inputs
        self.last = block(inputs, LAST, 1, hidden, hidden, hidden)
        self.head = conv_norm(LAST, HEAD, 1, activation)
        self.dropout = nn.Dropout(0.0 if cifar else 0.2)
        self.classifier = nn.Linear(HEAD, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        for stage in self.stages:
            x = stage(x)
        x = self.head(self.last(x))
        logits: Tensor = self.classifier(self.dropout(x.mean(dim=(2, 3))))
        return logits

    def own_name(self, name: str) -> str:
        """Return what a tensor that torchvision's MobileNetV2 has is called here."""
        feature = re.fullmatch(r"features\.(\d+)\.(.+)", name)
        if feature is None:
            return name.replace("classifier.1.", "classifier.")
        place = _PLACES.get(int(feature[1]), "")
        parts = ("depthwise", *_PROJECT) if place == "first" else ("expand", "depthwise", *_PROJECT)
        names = {f"conv.{index}": part for index, part in enumerate(parts)}
        within = re.sub(r"^conv\.\d", lambda at: names.get(at[0], at[0]), feature[2])
        return f"{place}.{within}"
