"""The ResNets of the paper."""

from __future__ import annotations

import pytest
import torch

from afi_search.nn import build
from afi_search.space import Architecture

# The paper's Table 4; the second AFI-ResNet-110 is the setting behind its printed 1.35M.
CIFAR_PARAMETERS = {
    "resnet32": 472_756,
    "resnet32(base-r4)": 378_228,
    "resnet32(B-r16)": 668_980,
    "resnet110": 1_736_564,
    "resnet110(base-r4)": 1_334_820,
    "resnet110(base-r2)": 1_346_244,
    "resnet110(B-r16)": 2_570_516,
}


@pytest.mark.parametrize("text", CIFAR_PARAMETERS)
def test_parameters_are_those_of_the_paper(text):
    with torch.device("meta"):
        model = build(Architecture.parse(text), num_classes=100, image_size=32)
    assert sum(p.numel() for p in model.parameters()) == CIFAR_PARAMETERS[text]


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_a_resnet_has_as_many_weighted_layers_as_its_name_says(depth):
    with torch.device("meta"):
        model = build(Architecture.plain(f"resnet{depth}"), num_classes=10, image_size=32)
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "downsample" not in name
    ]
    assert len(layers) == depth
