from __future__ import annotations

import pytest
import torch
from pandas import DataFrame

from afi_search.analysis.networks import BlockIndex
from afi_search.analysis.weights import mean_weights
from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise
from afi_search.nn import afi_weights, build
from afi_search.space import Architecture

NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), torch.device("cpu"))


def made(text: str) -> tuple[torch.nn.Module, ImageSet]:
    torch.manual_seed(0)
    model = build(Architecture.parse(text), num_classes=10, image_size=32).eval()
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    return model, ImageSet(images, torch.arange(5))


def sources_of(readings: DataFrame) -> dict[BlockIndex, tuple[int, ...]]:
    found: dict[BlockIndex, tuple[int, ...]] = {}
    for reading in readings.to_dict("records"):
        place = BlockIndex(reading["stage"], reading["block"])
        found[place] = (*found.get(place, ()), reading["source"])
    return found


@pytest.mark.parametrize("choice", ["base-r4", "B-r4-shared"])
def test_weights_are_means_over_images_and_channels(choice):
    model, images = made(f"resnet32(off, {choice}, off)")

    readings = mean_weights(model, images, NORMALISE, batch_size=2)

    assert sources_of(readings) == {
        BlockIndex(2, block): tuple(range(1, block)) for block in range(2, 6)
    }
    whole = afi_weights(model, NORMALISE(images.images))["layer2.4"]
    last = readings[(readings["stage"] == 2) & (readings["block"] == 5)]
    torch.testing.assert_close(torch.tensor(list(last["weight"])), whole.mean((0, 2)))
    torch.testing.assert_close(
        torch.tensor(list(last["std_over_channels"])),
        whole.mean(0).std(1, correction=0),
        atol=1e-6,
        rtol=1e-3,
    )
    for total in readings.groupby(["stage", "block"])["weight"].sum():
        assert total == pytest.approx(1)


def test_where_the_transition_block_is_too_narrow_the_sources_start_with_x2():
    model, images = made("mobilenetv2(B-r16, B-r16, B-r16, off, base-r16)")
    assert sources_of(mean_weights(model, images, NORMALISE)) == {
        BlockIndex(1, 2): (2,),
        BlockIndex(2, 2): (2,),
        BlockIndex(2, 3): (2,),
        BlockIndex(3, 2): (2,),
        BlockIndex(3, 3): (2,),
        BlockIndex(3, 4): (2, 3),
        BlockIndex(5, 2): (1,),
        BlockIndex(5, 3): (1, 2),
    }
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_plain_network_reads_nothing():
    assert mean_weights(*made("resnet20"), NORMALISE).empty
