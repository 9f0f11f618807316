"""Building: errors, and what every architecture must do."""

from __future__ import annotations

import pytest
import torch

from afi_search.errors import UserError
from afi_search.nn import build
from afi_search.space import Architecture


def test_an_image_size_the_backbone_does_not_take_is_a_clear_error():
    with pytest.raises(UserError, match=r"resnet20.*224.*32"):
        build(Architecture.plain("resnet20"), num_classes=10, image_size=224)


def test_weights_are_drawn_from_the_current_generator():
    def weights(seed):
        torch.manual_seed(seed)
        return build(Architecture.parse("resnet20(B-r4)"), num_classes=10, image_size=32)

    one, same, other = (weights(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])
