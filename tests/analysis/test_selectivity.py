from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from afi_search.analysis.networks import BlockIndex
from afi_search.analysis.selectivity import class_selectivity, selectivity_of_blocks
from afi_search.data import ImageSet
from afi_search.data.tensor_source import Normalise
from afi_search.nn import Stage, build
from afi_search.space import Architecture

CPU = torch.device("cpu")
NORMALISE = Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), CPU)


def test_the_index_is_that_of_the_definition():
    means = torch.tensor([[3.0, 2.0, 0.0], [1.0, 2.0, 5.0], [0.0, 2.0, 0.0]])
    torch.testing.assert_close(
        class_selectivity(means), torch.tensor([(3 - 0.5) / (3 + 0.5), 0.0, 1.0])
    )


def test_a_channel_that_is_never_active_has_no_index():
    assert class_selectivity(torch.tensor([[0.0, 1.0], [0.0, 3.0]])).tolist() == [0.5]


@settings(deadline=None, max_examples=30)
@given(
    means=st.integers(2, 8).flatmap(
        lambda classes: st.lists(
            st.lists(st.floats(0, 1e6), min_size=classes, max_size=classes), min_size=1, max_size=5
        )
    ),
    scale=st.floats(0.01, 100),
)
def test_the_index_lies_between_0_and_1_whatever_the_scale(means, scale):
    by_class = torch.tensor(means, dtype=torch.float64).T
    index = class_selectivity(by_class)
    assert ((index >= -1e-12) & (index <= 1)).all()
    if len(index) == by_class.shape[1]:
        torch.testing.assert_close(class_selectivity(scale * by_class), index, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("text", ["resnet20", "resnet20(base-r4, off, B-r4-shared)", "mobilenetv2"])
def test_blocks_are_measured_by_their_outputs(text):
    torch.manual_seed(0)
    model = build(Architecture.parse(text), num_classes=3, image_size=32).eval()
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    images = ImageSet(torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8), labels)

    measured = selectivity_of_blocks(model, images, NORMALISE, 3, batch_size=4)

    stages = [module for module in model.modules() if isinstance(module, Stage)]
    assert list(measured) == [
        BlockIndex(number, block)
        for number, stage in enumerate(stages, start=1)
        for block in range(1, stage.depth + 1)
    ]
    assert not any(module._forward_hooks for module in model.modules())
    # What the last block of a stage puts out is what the stage puts out.
    outputs = []
    stages[-1].register_forward_hook(lambda _stage, _inputs, output: outputs.append(output))
    with torch.no_grad():
        model(NORMALISE(images.images))
    activity = F.relu(outputs[0]).mean((2, 3)).double()
    means = torch.stack([activity[labels == label].mean(0) for label in range(3)])
    torch.testing.assert_close(
        measured[BlockIndex(len(stages), stages[-1].depth)],
        class_selectivity(means),
        atol=1e-5,
        rtol=1e-4,
    )
