"""A backbone is one file and one registration: here is one from outside the package."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from afi_search.cost import measure, stage_costs
from afi_search.nn import Block, Stage, build
from afi_search.space import (
    Architecture,
    Backbone,
    StageChoice,
    StageShape,
    backbone_names,
    get_backbone,
    register,
)


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


@pytest.fixture
def toy(monkeypatch):
    registry = {name: get_backbone(name) for name in backbone_names()}
    monkeypatch.setattr("afi_search.space.backbone._BACKBONES", registry)
    return register(Backbone("toynet", (StageShape(8, 2), StageShape(16, 4)), (16,), build_toy))


def test_a_toy_backbone_builds_and_trains(toy):
    model = build(
        Architecture.parse("toynet(B-r4, base-r2-eca-shared)"), num_classes=5, image_size=16
    )
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_toy_backbone_is_measured(toy):
    plain = measure(Architecture.plain("toynet"), num_classes=5, image_size=16)
    stage1 = (3 * 8 + 3 * 8 * 8) * 9 * 64
    stage2 = (8 * 16 + 7 * 16 * 16) * 9 * 16
    assert plain.macs == stage1 + stage2 + 16 * 5

    choice = StageChoice("B", 4)
    costs = stage_costs("toynet", [[choice], [choice]], num_classes=5, image_size=16)
    for stages in [(choice, None), (None, choice), (choice, choice)]:
        architecture = Architecture("toynet", stages)
        assert costs.cost(architecture) == measure(architecture, num_classes=5, image_size=16)
