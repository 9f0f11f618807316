"""A backbone is one file and one registration: here is one from outside the package."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from afi_search.cost import measure
from afi_search.cost.counts import count
from afi_search.cost.table import count_choices
from afi_search.nn import build
from afi_search.space import Architecture, StageChoice
from tests.typed import there

pytestmark = pytest.mark.usefixtures("toynet")


def test_a_toy_backbone_builds_and_trains():
    model = build(
        Architecture.parse("toynet(B-r4, base-r2-eca-shared)"), num_classes=5, image_size=16
    )
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(there(parameter.grad).isfinite().all() for parameter in model.parameters())


def test_a_toy_backbone_is_measured():
    plain = measure(Architecture.plain("toynet"), num_classes=5, image_size=16)
    stage1 = (3 * 8 + 3 * 8 * 8) * 9 * 64
    stage2 = (8 * 16 + 7 * 16 * 16) * 9 * 16
    assert plain.macs == stage1 + stage2 + 16 * 5

    choice = StageChoice("B", 4)
    counted = partial(count, num_classes=5, image_size=16)
    costs = count_choices("toynet", [[choice], [choice]], counted)
    for stages in [(choice, None), (None, choice), (choice, choice)]:
        architecture = Architecture("toynet", stages)
        assert costs.of(architecture).cost == measure(architecture, num_classes=5, image_size=16)
