"""Add-on attention on R."""

from __future__ import annotations

import pytest
import torch

from afi_search.errors import UserError
from afi_search.nn import Stage, build
from afi_search.space import ATTENTIONS, Architecture
from tests.typed import part, there


@pytest.mark.parametrize("kind", ATTENTIONS.names)
@pytest.mark.parametrize("channels", [8, 16, 29, 64])
def test_attention_scales_every_element_by_a_gate_between_0_and_1(kind, channels):
    attention = ATTENTIONS.get(kind).layer(channels)
    x = torch.rand(2, channels, 5, 5) + 0.1

    gate = attention(x) / x

    assert gate.shape == x.shape
    assert (gate > 0).all()
    assert (gate < 1).all()


def test_gather_excite_is_the_sigmoid_of_the_channels_average():
    x = torch.randn(2, 8, 5, 5)
    expected = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
    torch.testing.assert_close(ATTENTIONS.get("ge").layer(8)(x), expected)


@pytest.mark.parametrize(("kind", "channels"), [("se", 7), ("cbam", 7), ("eca", 2)])
def test_too_few_channels_are_a_clear_error(kind, channels):
    with pytest.raises(UserError, match=rf"{kind}.*at least {channels + 1} channels.*{channels}"):
        ATTENTIONS.get(kind).layer(channels)
    ATTENTIONS.get(kind).layer(channels + 1)


@pytest.mark.parametrize("kind", ATTENTIONS.names)
@pytest.mark.parametrize("scorer", ["", "-shared"])
def test_attention_works_on_r_in_every_block_that_reads(kind, scorer):
    model = build(
        Architecture.parse(f"resnet20(base-r4-{kind}{scorer})"), num_classes=10, image_size=32
    )
    seen = []
    for stage in ("layer1", "layer2", "layer3"):
        for attention in part(model, stage, Stage).attention:
            attention.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape))

    model(torch.randn(2, 3, 32, 32)).sum().backward()

    assert [tuple(shape) for shape in seen] == [
        *[(2, 8, 32, 32)] * 2,
        *[(2, 16, 16, 16)] * 2,
        *[(2, 32, 8, 8)] * 2,
    ]
    attention_parameters = [p for n, p in model.named_parameters() if ".attention." in n]
    assert all(there(parameter.grad).isfinite().all() for parameter in attention_parameters)
