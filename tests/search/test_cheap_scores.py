"""Scores of untrained networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from afi_search.nn.ops.batch_norm import BatchNorm2d
from afi_search.search.cheap_scores import cheap_scores, naswot, synflow, zico
from afi_search.space import Architecture
from tests.typed import part


def batch(size: int = 16, pixels: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, pixels, pixels, generator=generator)
    return images, torch.randint(0, 10, (size,), generator=generator)


@pytest.mark.parametrize(
    "text", ["resnet20", "resnet20(base-r4-cbam)", "mobilenetv2(B-r16-shared)"]
)
def test_scores_depend_on_architecture_and_seed_alone(text):
    images, labels = batch(8, pixels=32 if text.startswith("mobile") else 16)
    one, other, another = (
        cheap_scores(Architecture.parse(text), images, labels, num_classes=10, seed=seed)
        for seed in (0, 0, 1)
    )
    assert one == other != another
    assert set(one) == {"naswot", "zico", "synflow"}
    assert all(map(math.isfinite, one.values()))


def test_naswot_is_the_log_determinant_of_common_activations():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), norm := BatchNorm2d(4), nn.ReLU())
    images, _ = batch(6)
    seen = []
    norm.register_forward_hook(lambda *of: seen.append(of[2]))
    found = naswot(net, images)
    codes = (seen[0] > 0).flatten(1).numpy()
    alike = np.array([[(a == b).sum() for b in codes] for a in codes], dtype=float)
    assert found == pytest.approx(np.linalg.slogdet(alike)[1])


def test_zico_falls_with_the_spread_of_gradients():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    images, labels = batch(16)
    alike = images[:4].repeat(4, 1, 1, 1) + 0.01 * images
    assert zico(net, alike, labels[:4].repeat(4)) > zico(net, images, labels)


def test_synflow_of_a_linear_network_is_the_sum_of_its_paths():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(3, 4, bias=False),
        nn.Linear(4, 2, bias=False),
    )
    first, second = (
        part(net, layer, nn.Linear).weight.detach().abs().double() for layer in ("2", "3")
    )
    paths = (second @ first).sum().item()
    assert synflow(net, 8) == pytest.approx(math.log(2 * paths))
