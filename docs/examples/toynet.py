"""A backbone of your own: two stages of plain blocks and a classifier."""

from functools import partial

from torch import nn

import afi_search
from afi_search.nn import Block, Stage
from afi_search.space import Backbone, StageShape


def convolution(inputs, outputs, stride=1):
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class ToyBlock(Block):
    """Two 3x3 convolutions. AFI steps in between `first` and `second`."""

    def __init__(self, inputs, channels, stride, first, second):
        super().__init__()
        self.one = convolution(inputs, first, stride)
        self.two = convolution(second, channels)

    def first(self, x):  # B x inputs x H x W -> B x first x H' x W'; its activation comes later
        return self.one(x)

    def second(self, feature):  # B x second x H' x W' -> B x channels x H' x W'
        return self.two(feature).relu()

    def last(self, y, x):  # of second's output and the block's input: no shortcut here
        return y


SHAPES = (StageShape(channels=16, blocks=3), StageShape(channels=32, blocks=3))


def build_toynet(architecture, *, num_classes, image_size):
    stages, inputs = [], 3
    for shape, choice in zip(SHAPES, architecture.stages, strict=True):
        channels = shape.channels
        transition = ToyBlock(inputs, channels, 2, channels, channels)  # block 1: never has AFI
        stages.append(Stage(shape, choice, transition, partial(ToyBlock, channels, channels, 1)))
        inputs = channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)]
    return nn.Sequential(*stages, *head)


afi_search.register_backbone(Backbone("toynet", SHAPES, (16, 32), build_toynet))
