"""Memory as counted against a training step followed tensor by tensor."""

from __future__ import annotations

from functools import partial

import pytest

from afi_search.analysis.memory import traced
from afi_search.cost import measure
from afi_search.cost.cost import Parts
from afi_search.cost.counts import count
from afi_search.nn import build
from afi_search.space import Architecture

NETWORKS = [
    "resnet20",
    "resnet20(base-r4, off, B-r16-se)",
    "resnet20(B-r4-cbam-shared)",
    "mobilenetv2(B-r16)",
    "shufflenetv2(base-r4)",
]


@pytest.mark.parametrize("text", NETWORKS)
def test_what_is_counted_is_what_a_training_step_holds_at_its_peak(text: str) -> None:
    architecture = Architecture.parse(text)
    make = partial(build, architecture, num_classes=100, image_size=32)

    counted = measure(architecture, num_classes=100, image_size=32, batch_size=64)

    assert counted.memory == pytest.approx(traced(make, 32, 64).training, rel=0.015)


def test_stages_hold_what_the_network_holds_but_for_stem_and_classifier() -> None:
    architecture = Architecture.parse("resnet20(base-r4)")
    small, large = (
        kept(count(architecture, num_classes=10, image_size=32, batch_size=size))
        for size in (8, 16)
    )

    for whole, *stages in (small, large):
        assert all(stage > 0 for stage in stages)
        assert 0 < whole - sum(stages) < whole / 4
    assert large[0] == pytest.approx(2 * small[0], rel=0.01)


def kept(parts: Parts) -> list[int]:
    """Return the bytes that are kept for the backward pass: of the network and of its stages."""
    return [part.memory - 12 * part.params for part in (parts.whole, *parts.stages)]
