"""The ResNets of the paper; their parameters and FLOPs are in tests/test_cost.py."""

from __future__ import annotations

import pytest
import torch

from afi_search.nn import build
from afi_search.nn.backbones.resnet import Bottleneck
from afi_search.space import Architecture
from tests.typed import part


@pytest.mark.parametrize("name", ["resnet20", "resnet110", "resnet50", "resnet101", "resnet152"])
def test_a_resnet_has_as_many_weighted_layers_as_its_name_says(name):
    with torch.device("meta"):
        model = build(Architecture.plain(name), num_classes=10, image_size=32)
    layers = [
        layer
        for layer, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "downsample" not in layer
    ]
    assert len(layers) == int(name.removeprefix("resnet"))


def test_the_cifar_stem_keeps_the_resolution_and_the_imagenet_stem_does_not():
    sizes = {}
    for image_size in (32, 224):
        with torch.device("meta"):
            model = build(Architecture.plain("resnet50"), num_classes=10, image_size=image_size)
            model.get_submodule("layer1").register_forward_pre_hook(
                lambda _m, inputs, of=image_size: sizes.update({of: inputs[0].shape[-1]})
            )
            model(torch.empty(2, 3, image_size, image_size))
    assert sizes == {32: 32, 224: 56}


def test_se_weighs_what_the_last_convolution_of_a_block_puts_out():
    model = build(Architecture.plain("seresnet50"), num_classes=10, image_size=32).eval()
    block = part(model, "layer1.1", Bottleneck)
    x = torch.randn(2, 256, 4, 4).relu()

    y = block.bn3(block.conv3(block.second(block.activate(block.first(x)))))
    squeezed = y.mean((2, 3))
    w1, w2 = (p.flatten(1) for p in block.se.parameters())
    gate = torch.sigmoid((squeezed @ w1.T).relu() @ w2.T)

    assert w1.shape == (16, 256)
    torch.testing.assert_close(block(x), (x + y * gate[:, :, None, None]).relu())
